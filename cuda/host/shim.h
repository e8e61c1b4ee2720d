// Lets a C++ compiler read a kernel file: `zig build test` runs kernels whose threads do not meet
// as plain loops on the CPU and compares them with the CPU backend. The caller sets the
// coordinates.
#pragma once

#define __global__
#define __device__

struct HostDim {
    unsigned x;
    unsigned y;
    unsigned z;
};

extern "C" {
extern HostDim blockIdx;
extern HostDim threadIdx;
extern HostDim blockDim;
extern HostDim gridDim;
}
