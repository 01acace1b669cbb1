// Sparse convolution on the CPU; contract in sparse_conv3d.h.
//
// Sites are looked up in a hash table. The convolution takes the output sites in pieces: for each tap the rows that meet an input are
// gathered as pointers and go, six at a time, through a small product of matrices that keeps its sums in registers. The gradient by the
// features is the same product with the map turned round (each input meets at most one output through a tap).
#include "sparse_conv3d.h"

#include <atomic>
#include <vector>

#include "parallel.h"

namespace fourd {
namespace {

constexpr int kTaps = 27;
constexpr int kRows = 6;          // rows multiplied at a time
constexpr int64_t kPiece = 192;   // output sites a thread takes at a time

#define FOURD_KERNELS_FILE "sparse_conv3d_kernels.inl"
#include "instruction_sets.inl"

struct Kernels {
  void (*multiply_rows)(const float* const*, float* const*, int64_t, const float*, int, int);
  void (*outer_rows)(const float* const*, float* const*, int64_t, float*, int, int);
};

Kernels kernels() {
#if FOURD_X86
  if (instruction_set() == kAvx512) return {avx512::multiply_rows, avx512::outer_rows};
  if (instruction_set() == kAvx2) return {avx2::multiply_rows, avx2::outer_rows};
#endif
  return {plain::multiply_rows, plain::outer_rows};
}

// From a site's number (its place in the dense volume) to its index.
class SiteTable {
 public:
  explicit SiteTable(int64_t count) {
    while ((int64_t(1) << bits_) < 2 * count) bits_++;
    numbers_.assign(size_t(1) << bits_, -1);
    indices_.resize(size_t(1) << bits_);
  }
  bool insert(int64_t number, int32_t index) {
    size_t at = slot(number);
    for (; numbers_[at] >= 0; at = next(at))
      if (numbers_[at] == number) return false;
    numbers_[at] = number;
    indices_[at] = index;
    return true;
  }
  int32_t find(int64_t number) const {
    for (size_t at = slot(number); numbers_[at] >= 0; at = next(at))
      if (numbers_[at] == number) return indices_[at];
    return -1;
  }

 private:
  size_t slot(int64_t number) const { return size_t((uint64_t(number) * 0x9E3779B97F4A7C15ull) >> (64 - bits_)); }
  size_t next(size_t at) const { return (at + 1) & ((size_t(1) << bits_) - 1); }
  int bits_ = 4;
  std::vector<int64_t> numbers_;
  std::vector<int32_t> indices_;
};

struct Volume {
  int64_t depth, height, width;
  int64_t number(int64_t b, int64_t d, int64_t h, int64_t w) const { return ((b * depth + d) * height + h) * width + w; }
  bool holds(int64_t d, int64_t h, int64_t w) const {
    return d >= 0 && d < depth && h >= 0 && h < height && w >= 0 && w < width;
  }
};

// The sites of stride 2, in rising order, through one bit for each place of the output volume.
int64_t strided_sites(const FourdNeighbourArgs& s, const Volume& half) {
  const int64_t places = int64_t(s.batch) * half.depth * half.height * half.width;
  std::vector<uint64_t> active(size_t(places / 64 + 1), 0);
  for (int64_t n = 0; n < s.count; n++) {
    const int32_t* site = s.coordinates + 4 * n;
    for (int tap = 0; tap < 8; tap++) {  // an even coordinate meets one output, an odd one two
      const int64_t d = (site[1] + (tap & 1)) / 2, h = (site[2] + (tap >> 1 & 1)) / 2, w = (site[3] + (tap >> 2)) / 2;
      if (!half.holds(d, h, w)) continue;
      const int64_t number = half.number(site[0], d, h, w);
      active[size_t(number >> 6)] |= uint64_t(1) << (number & 63);
    }
  }
  int64_t found = 0;
  for (size_t word = 0; word < active.size(); word++) {
    for (uint64_t left = active[word]; left; left &= left - 1) {
      int64_t number = int64_t(word) * 64 + __builtin_ctzll(left);
      int32_t* out = s.out_coordinates + 4 * found++;
      out[3] = int32_t(number % half.width), number /= half.width;
      out[2] = int32_t(number % half.height), number /= half.height;
      out[1] = int32_t(number % half.depth);
      out[0] = int32_t(number / half.depth);
    }
  }
  return found;
}

int map_neighbours(FourdNeighbourArgs* args) {
  FourdNeighbourArgs& s = *args;
  const Volume volume{s.depth, s.height, s.width};
  SiteTable table(s.count);
  for (int64_t n = 0; n < s.count; n++) {
    const int32_t* site = s.coordinates + 4 * n;
    if (site[0] < 0 || site[0] >= s.batch || !volume.holds(site[1], site[2], site[3])) return kBadIndex;
    if (!table.insert(volume.number(site[0], site[1], site[2], site[3]), int32_t(n))) return kBadIndex;
  }
  const int32_t* out_sites = s.coordinates;
  s.out_count = s.count;
  if (s.stride == 2) {
    const Volume half{(volume.depth + 1) / 2, (volume.height + 1) / 2, (volume.width + 1) / 2};
    s.out_count = strided_sites(s, half);
    out_sites = s.out_coordinates;
  }
  parallel_ranges(max_threads(s.threads), s.out_count, 1024, [&](int64_t begin, int64_t end, int) {
    for (int64_t m = begin; m < end; m++) {
      const int32_t* site = out_sites + 4 * m;
      for (int tap = 0; tap < kTaps; tap++) {
        const int64_t d = int64_t(site[1]) * s.stride + tap / 9 - 1, h = int64_t(site[2]) * s.stride + tap / 3 % 3 - 1,
                      w = int64_t(site[3]) * s.stride + tap % 3 - 1;
        s.inputs[tap * s.out_count + m] = volume.holds(d, h, w) ? table.find(volume.number(site[0], d, h, w)) : -1;
      }
    }
  });
  return kOk;
}

// The pairs (input row, output row) of one tap among the output sites begin..end-1, filled up to a multiple of kRows with products that
// go to `spare`. Returns false where the map points beyond the inputs.
struct Pairs {
  std::vector<const float*> from;
  std::vector<float*> to;

  bool collect(const int32_t* inputs, int64_t begin, int64_t end, int64_t count, const float* features, int channels, float* out,
               int out_channels) {
    from.clear();
    to.clear();
    for (int64_t m = begin; m < end; m++) {
      if (inputs[m] < 0) continue;
      if (inputs[m] >= count) return false;
      from.push_back(features + int64_t(inputs[m]) * channels);
      to.push_back(out + m * out_channels);
    }
    return true;
  }
  void fill_up(float* spare) {
    while (from.size() % kRows) {
      from.push_back(from.back());
      to.push_back(spare);
    }
  }
};

int convolve(const FourdSparseConvArgs& s) {
  const Kernels k = kernels();
  std::atomic<bool> bad{false};
  parallel_ranges(max_threads(s.threads), s.out_count, kPiece, [&](int64_t begin, int64_t end, int) {
    static thread_local Pairs pairs;
    static thread_local Scratch<float> spare;
    float* dump = spare.reserve(size_t(s.out_channels));
    std::memset(dump, 0, size_t(s.out_channels) * sizeof(float));
    std::memset(s.out + begin * s.out_channels, 0, size_t(end - begin) * s.out_channels * sizeof(float));
    for (int tap = 0; tap < kTaps; tap++) {
      if (!pairs.collect(s.inputs + tap * s.out_count, begin, end, s.count, s.features, s.channels, s.out, s.out_channels)) {
        bad = true;
        return;
      }
      pairs.fill_up(dump);
      k.multiply_rows(pairs.from.data(), pairs.to.data(), int64_t(pairs.from.size()), s.weight + int64_t(tap) * s.channels * s.out_channels,
                      s.channels, s.out_channels);
    }
  });
  return bad ? kBadIndex : kOk;
}

int features_back(const FourdSparseConvBackwardArgs& b) {
  const FourdSparseConvArgs& s = b.forward;
  static thread_local Scratch<int32_t> scratch;
  int32_t* outputs = scratch.reserve(size_t(kTaps) * s.count + 1);  // [27, N]: the output site that an input meets
  std::atomic<bool> bad{false};
  parallel_for(max_threads(s.threads), kTaps, [&](int64_t tap, int) {
    int32_t* row = outputs + tap * s.count;
    const int32_t* inputs = s.inputs + tap * s.out_count;
    std::memset(row, 0xff, size_t(s.count) * sizeof(int32_t));
    for (int64_t m = 0; m < s.out_count; m++) {
      if (inputs[m] >= s.count) bad = true;
      else if (inputs[m] >= 0) row[inputs[m]] = int32_t(m);
    }
  });
  if (bad) return kBadIndex;
  return convolve({b.grad_out, outputs, b.weight_transposed, b.grad_features, s.out_count, s.count, s.out_channels, b.padded_channels,
                   s.threads});
}

int weight_back(const FourdSparseConvBackwardArgs& b) {
  const FourdSparseConvArgs& s = b.forward;
  const Kernels k = kernels();
  std::atomic<bool> bad{false};
  parallel_for(max_threads(s.threads), kTaps, [&](int64_t tap, int) {
    static thread_local Pairs pairs;
    float* gradient = b.grad_weight + tap * s.channels * s.out_channels;
    if (!pairs.collect(s.inputs + tap * s.out_count, 0, s.out_count, s.count, s.features, s.channels, const_cast<float*>(b.grad_out),
                       s.out_channels)) {
      bad = true;
      return;
    }
    k.outer_rows(pairs.from.data(), pairs.to.data(), int64_t(pairs.from.size()), gradient, s.channels, s.out_channels);
  });
  return bad ? kBadIndex : kOk;
}

bool valid(const FourdSparseConvArgs& s) {
  return s.count >= 0 && s.count < INT32_MAX && s.out_count >= 0 && s.out_count < INT32_MAX && s.channels >= 1 &&
         s.out_channels >= 16 && s.out_channels % 16 == 0;
}

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_neighbour_map(FourdNeighbourArgs* args) {
  using namespace fourd;
  if (args->count < 0 || args->count >= INT32_MAX / 8 || args->batch < 0 || args->depth < 1 || args->height < 1 || args->width < 1 ||
      (args->stride != 1 && args->stride != 2))
    return kBadArgument;
  try {
    return map_neighbours(args);
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
}

FOURD_EXPORT int fourd_sparse_conv3d(const FourdSparseConvArgs* args) {
  using namespace fourd;
  if (!valid(*args)) return kBadArgument;
  try {
    return convolve(*args);
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
}

FOURD_EXPORT int fourd_sparse_conv3d_backward(const FourdSparseConvBackwardArgs* args) {
  using namespace fourd;
  if (!valid(args->forward) || args->padded_channels < args->forward.channels || args->padded_channels % 16 != 0) return kBadArgument;
  try {
    int status = args->grad_features ? features_back(*args) : int(kOk);
    if (status == kOk && args->grad_weight) status = weight_back(*args);
    return status;
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
}
