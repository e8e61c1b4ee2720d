// Cooperation of the threads of a block: barriers, warp functions, shared memory, atomics. One
// thread of one block runs at a time and hands over only here, so atomics are plain arithmetic; the
// order in the next threads are chosen at random at each barrier (zig/emulator/block.zig).
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "types.h"

// Inside this library: no table to go through at each use.
#pragma GCC visibility push(hidden)
extern "C" {
extern uint3 blockIdx;
extern uint3 threadIdx;
extern uint3 blockDim;
extern uint3 gridDim;

/// Computes what every lane of `present` gets; operands[i] is what lane i brought.
typedef void HostMeeting(void* const* operands, uint32_t present);

/// Returns when every thread of the block came to this line.
void bxl_host_barrier(unsigned line);
/// Returns when every active lane of `mask` has reached the same call; one of them runs it for all.
void bxl_host_meet(HostMeeting* meeting, void* operands, uint32_t mask, unsigned line);
/// This block's memory of the shared variable `key`, filled with 0xff when the block starts.
void* bxl_host_shared(const void* key, size_t bytes);
void* bxl_host_dynamic_shared(void);
/// A copy of 16 bytes that lands at the wait for its group; zeros where `from` is null.
void bxl_host_copy_start(void* to, const void* from);
void bxl_host_copy_commit(void);
void bxl_host_copy_wait(unsigned newest);
/// This thread waits for the kernels before its own: counted, since they have ended already.
void bxl_host_grid_wait(void);
/// Ends the kernel with CUDA_ERROR_MISALIGNED_ADDRESS (716).
void bxl_host_misaligned(const void* address);
/// Ends the kernel with CUDA_ERROR_LAUNCH_FAILED (719).
void bxl_host_trap(const char* reason);
}
#pragma GCC visibility pop

constexpr int warpSize = 32;

#define SHARED(type, name, count)                                                  \
    static const char name##_key = 0;                                              \
    type* const name = (type*)bxl_host_shared(&name##_key, sizeof(type) * (count))
#define DYNAMIC_SHARED(type, name) type* const name = (type*)bxl_host_dynamic_shared()

inline void __syncthreads(unsigned line = __builtin_LINE()) { bxl_host_barrier(line); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void wait_for_earlier_kernels() { bxl_host_grid_wait(); }
inline void __trap() { bxl_host_trap("__trap"); }

// --- warps ---

inline unsigned host_lane() {
    const unsigned row = threadIdx.y + threadIdx.z * blockDim.y;
    return (threadIdx.x + row * blockDim.x) % 32;
}

inline void host_meet_only(void* const*, uint32_t) {}
inline void __syncwarp(uint32_t mask = 0xffffffffu, unsigned line = __builtin_LINE()) {
    bxl_host_meet(host_meet_only, nullptr, mask, line);
}

struct HostShuffle {
    uint64_t value;
    uint64_t result;
    unsigned source;
};

/// A lane that is not there gives what an uninitialised register would: anything, here NaN.
inline void host_shuffle_all(void* const* operands, uint32_t present) {
    for (unsigned lane = 0; lane < 32; lane++) {
        if (!(present >> lane & 1)) continue;
        HostShuffle* mine = (HostShuffle*)operands[lane];
        const bool there = present >> mine->source & 1;
        mine->result = there ? ((HostShuffle*)operands[mine->source])->value : ~(uint64_t)0;
    }
}

template <typename T>
inline T host_shuffle(uint32_t mask, T x, unsigned source, unsigned line) {
    static_assert(sizeof(T) <= 8, "a shuffle moves up to 8 bytes");
    HostShuffle shuffle = {0, 0, source};
    memcpy(&shuffle.value, &x, sizeof(x));
    bxl_host_meet(host_shuffle_all, &shuffle, mask, line);
    memcpy(&x, &shuffle.result, sizeof(x));
    return x;
}

/// The lane itself where the source would leave its segment of `width`.
inline unsigned host_source(unsigned target, bool inside) { return inside ? target : host_lane(); }

template <typename T>
inline T __shfl_sync(
    uint32_t mask, T x, int source, int width = 32, unsigned line = __builtin_LINE()
) {
    const unsigned first = host_lane() / width * width;
    return host_shuffle(mask, x, first + (unsigned)source % width, line);
}
template <typename T>
inline T __shfl_xor_sync(
    uint32_t mask, T x, int lane_mask, int width = 32, unsigned line = __builtin_LINE()
) {
    const unsigned target = host_lane() ^ (unsigned)lane_mask;
    const bool inside = target / width <= host_lane() / width;
    return host_shuffle(mask, x, host_source(target, inside), line);
}
template <typename T>
inline T __shfl_down_sync(
    uint32_t mask, T x, unsigned delta, int width = 32, unsigned line = __builtin_LINE()
) {
    const bool inside = host_lane() % width + delta < (unsigned)width;
    return host_shuffle(mask, x, host_source(host_lane() + delta, inside), line);
}
template <typename T>
inline T __shfl_up_sync(
    uint32_t mask, T x, unsigned delta, int width = 32, unsigned line = __builtin_LINE()
) {
    const bool inside = host_lane() % width >= delta;
    return host_shuffle(mask, x, host_source(host_lane() - delta, inside), line);
}

inline void host_ballot_all(void* const* operands, uint32_t present) {
    uint32_t votes = 0;
    for (unsigned lane = 0; lane < 32; lane++) {
        if (present >> lane & 1) votes |= (*(uint32_t*)operands[lane] & 1) << lane;
    }
    for (unsigned lane = 0; lane < 32; lane++) {
        if (present >> lane & 1) *(uint32_t*)operands[lane] = votes;
    }
}
inline unsigned __ballot_sync(
    uint32_t mask, int predicate, unsigned line = __builtin_LINE()
) {
    uint32_t vote = predicate != 0;
    bxl_host_meet(host_ballot_all, &vote, mask, line);
    return vote;
}
inline int __any_sync(uint32_t mask, int predicate, unsigned line = __builtin_LINE()) {
    return __ballot_sync(mask, predicate, line) != 0;
}
inline int __all_sync(uint32_t mask, int predicate, unsigned line = __builtin_LINE()) {
    return __ballot_sync(mask, !predicate, line) == 0;
}

// --- atomics ---

template <typename T>
inline T host_exchange(T* at, T value) {
    const T old = *at;
    *at = value;
    return old;
}
#define HOST_ATOMICS(type)                                                                        \
    inline type atomicAdd(type* at, type x) { return host_exchange(at, (type)(*at + x)); }        \
    inline type atomicExch(type* at, type x) { return host_exchange(at, x); }                     \
    inline type atomicMax(type* at, type x) { return host_exchange(at, *at < x ? x : *at); }      \
    inline type atomicMin(type* at, type x) { return host_exchange(at, x < *at ? x : *at); }      \
    inline type atomicCAS(type* at, type expected, type x) {                                      \
        return host_exchange(at, *at == expected ? x : *at);                                      \
    }
HOST_ATOMICS(int)
HOST_ATOMICS(unsigned)
HOST_ATOMICS(unsigned long long)
#undef HOST_ATOMICS
inline float atomicAdd(float* at, float x) { return host_exchange(at, *at + x); }
inline double atomicAdd(double* at, double x) { return host_exchange(at, *at + x); }
inline unsigned atomicOr(unsigned* at, unsigned x) { return host_exchange(at, *at | x); }
inline unsigned atomicInc(unsigned* at, unsigned limit) {
    return host_exchange(at, *at >= limit ? 0u : *at + 1);
}
