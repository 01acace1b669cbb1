// What the kernels of cuda/ use of CUB, on a CPU; see cuda_runtime.h beside this file.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace cub {

struct DeviceRadixSort {
  static void SortPairs(void* temporary, size_t& bytes, const uint32_t* keys, uint32_t* sorted_keys, const uint32_t* values,
                        uint32_t* sorted_values, int count, int begin, int end, void* = nullptr) {
    if (!temporary) {
      bytes = 256;
      return;
    }
    const uint32_t mask = uint32_t((uint64_t(1) << end) - 1) & ~uint32_t((uint64_t(1) << begin) - 1);
    std::vector<uint32_t> order(static_cast<size_t>(count));
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return (keys[a] & mask) < (keys[b] & mask); });
    for (int i = 0; i < count; i++) {
      sorted_keys[i] = keys[order[size_t(i)]];
      sorted_values[i] = values[order[size_t(i)]];
    }
  }
};

struct DeviceScan {
  static void InclusiveSum(void* temporary, size_t& bytes, const uint32_t* in, uint32_t* out, int count, void* = nullptr) {
    if (!temporary) {
      bytes = 256;
      return;
    }
    uint32_t sum = 0;
    for (int i = 0; i < count; i++) out[i] = sum += in[i];
  }
};

}  // namespace cub
