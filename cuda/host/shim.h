// CUDA's device language for a C++ compiler on the CPU: `zig c++` compiles the kernel files with
// this header, and zig/emulator runs them. Every thread of a block is a fibre; the functions
// declared in host/threads.h hand over to the next. C headers only: there is no libc++ to link.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) alignas(bytes)
#define __launch_bounds__(...)
#define __grid_constant__

#include "types.h"

#include "arithmetic.h"

#include "threads.h"

#include "registry.h"
