// wgmma.cuh on the CPU: a warp's products are computed from shared memory, addressed as the
// hardware swizzles it, and as late as the waits allow, so that a tile that is overwritten too
// early shows.
#pragma once

#include "mma.h"

/// Element `column` of row `row` of a tile that begins at `tile`, or in the first row of one.
inline uint16_t host_swizzled(const unsigned short* tile, unsigned row, unsigned column) {
    const uintptr_t address = (uintptr_t)tile + row * 128 + column * 2;
    return *(const uint16_t*)(address ^ (address >> 7 & 7) << 4);
}

struct Wgmma {
    void begin(unsigned line = __builtin_LINE()) { __syncwarp(~0u, line); }

    template <typename Tensor, int count>
    void multiply(
        float (&d)[count][4],
        const unsigned short* a,
        const unsigned short* b,
        bool adds,
        unsigned line = __builtin_LINE()
    ) {
        __syncwarp(~0u, line);
        if (((uintptr_t)a & 0x380) || ((uintptr_t)b & 0x380)) {
            return bxl_host_trap("wgmma of a tile that does not begin at 1024 bytes");
        }
        if (open + started == limit) return bxl_host_trap("more wgmma than are waited for");
        pending[open + started++] = {d, a, b, adds, run<typename Tensor::Element, 8 * count>};
    }

    void commit(unsigned line = __builtin_LINE()) {
        __syncwarp(~0u, line);
        ends[groups++] = open += started;
        started = 0;
    }

    template <int newest>
    void wait(unsigned line = __builtin_LINE()) {
        __syncwarp(~0u, line);
        if (groups <= newest) return;
        const unsigned last = ends[groups - newest - 1];
        Pass pass = {this, last};
        bxl_host_meet(run_all, &pass, ~0u, line);
        for (unsigned i = last; i < open + started; i++) pending[i - last] = pending[i];
        for (unsigned i = 0; i < (unsigned)newest; i++) ends[i] = ends[groups - newest + i] - last;
        open -= last;
        groups = newest;
    }

private:
    struct Product {
        float (*d)[4];
        const unsigned short* a;
        const unsigned short* b;
        bool adds;
        void (*run)(const Product* const* lanes);
    };
    struct Pass {
        const Wgmma* products;
        unsigned count;
    };
    static constexpr unsigned limit = 16;

    static void run_all(void* const* operands, uint32_t present) {
        if (present != ~0u) return bxl_host_trap("wgmma without all 32 lanes");
        for (unsigned i = 0; i < ((const Pass*)operands[0])->count; i++) {
            const Product* lanes[32];
            for (unsigned lane = 0; lane < 32; lane++) {
                lanes[lane] = &((const Pass*)operands[lane])->products->pending[i];
            }
            lanes[0]->run(lanes);
        }
    }

    template <typename T, unsigned columns>
    static void run(const Product* const* lanes) {
        static_assert(columns == 192 || columns == 256, "as wgmma.cuh has them");
        const Product& p = *lanes[0];
        const unsigned row_first = threadIdx.x / 32 % 4 * 16;
        float b[16][columns];
        for (unsigned n = 0; n < columns; n++) {
            for (unsigned k = 0; k < 16; k++) {
                b[k][n] = host_element(host_swizzled(p.b, n, k), 0, T());
            }
        }
        for (unsigned row = 0; row < 16; row++) {
            float sums[columns] = {};
            for (unsigned k = 0; k < 16; k++) {
                const float a = host_element(host_swizzled(p.a, row_first + row, k), 0, T());
                for (unsigned n = 0; n < columns; n++) sums[n] += a * b[k][n];
            }
            for (unsigned n = 0; n < columns; n++) {
                const Product& owner = *lanes[row % 8 * 4 + n % 8 / 2];
                float& d = owner.d[n / 8][row / 8 * 2 + n % 2];
                d = p.adds ? d + sums[n] : sums[n];
            }
        }
    }

    Product pending[limit];
    unsigned ends[limit];
    /// Products of groups that are under way, and of the one that no commit has ended.
    unsigned open = 0;
    unsigned started = 0;
    unsigned groups = 0;
};

inline void publish_to_wgmma() {}
