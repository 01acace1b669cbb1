// Gaussian splatting on CUDA, forward and backward; contract in splat.h.
//
// All cameras at once: (1) project each (camera, Gaussian), counting the tiles that its ellipse touches; (2) sort them by depth; (3) in that
// order write one pair (tile, Gaussian) for each tile, at places found by a prefix sum; (4) sort the pairs by tile, which keeps the order of
// depth; (5) one block per tile blends, one thread per pixel. The sizes on the way depend on the data, so the buffers have a fixed room
// (pair_capacity) and the true number is left on the device: nothing waits for it.
#include "splat_math.cuh"

#if defined(FOURD_EMULATED)
#include "cub_emulated.h"
#else
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#endif

namespace fourd {
namespace {

constexpr int kThreads = 256;  // = pixels of a tile
constexpr int kWarp = 32;
constexpr unsigned kAll = 0xffffffffu;

// The buffers inside of the scratch memory; `bytes` is their end.
struct Buffers {
  Splat* splats;             // [C N]
  TileRange* ranges;         // [C N]
  uint32_t* counts;          // [C N] tiles of each, 0 where it is not seen
  uint32_t *depths, *sorted_depths;
  uint32_t *items, *sorted;  // [C N] numbers of (camera, Gaussian), and the same by depth
  uint32_t* sorted_counts;
  uint32_t* ends;            // [C N] inclusive prefix sum of the counts by depth
  uint32_t *tiles, *sorted_tiles, *pairs, *sorted_pairs;  // [capacity]
  uint32_t *first, *last;    // [C tiles] of the sorted pairs
  float* sums;               // [C N, kSums], backward only
  void* temporary;
  size_t temporary_bytes, bytes;
};

int tiles_across(const FourdSplatArgs& s) { return (s.width + kTile - 1) / kTile; }
int tiles_down(const FourdSplatArgs& s) { return (s.height + kTile - 1) / kTile; }

int bits_of(int64_t value) {
  int bits = 1;
  while ((int64_t(1) << bits) <= value) bits++;
  return bits;
}

template <typename T>
void place(char* base, size_t count, size_t* used, T** out) {
  *out = base ? reinterpret_cast<T*>(base + *used) : nullptr;
  *used += (count * sizeof(T) + 255) / 256 * 256;
}

Buffers buffers_of(const FourdSplatArgs& s, bool backward) {
  Buffers b = {};
  char* base = static_cast<char*>(s.scratch);
  const size_t items = size_t(s.cameras) * s.count, room = size_t(s.pair_capacity);
  const size_t tiles = size_t(s.cameras) * tiles_across(s) * tiles_down(s);
  size_t used = 0;
  place(base, items, &used, &b.splats);
  place(base, items, &used, &b.ranges);
  for (uint32_t** array : {&b.counts, &b.depths, &b.sorted_depths, &b.items, &b.sorted, &b.sorted_counts, &b.ends})
    place(base, items, &used, array);
  for (uint32_t** array : {&b.tiles, &b.sorted_tiles, &b.pairs, &b.sorted_pairs}) place(base, room, &used, array);
  for (uint32_t** array : {&b.first, &b.last}) place(base, tiles, &used, array);
  if (backward) place(base, items * kSums, &used, &b.sums);
  const uint32_t* none = nullptr;
  uint32_t* out = nullptr;
  size_t by_depth = 0, by_tile = 0, scan = 0;
  cub::DeviceRadixSort::SortPairs(nullptr, by_depth, none, out, none, out, int(items), 0, 32);
  cub::DeviceRadixSort::SortPairs(nullptr, by_tile, none, out, none, out, int(room), 0, 32);
  cub::DeviceScan::InclusiveSum(nullptr, scan, none, out, int(items));
  b.temporary_bytes = by_depth > by_tile ? by_depth : by_tile;
  b.temporary_bytes = b.temporary_bytes > scan ? b.temporary_bytes : scan;
  char* temporary = nullptr;
  place(base, b.temporary_bytes, &used, &temporary);
  b.temporary = temporary;
  b.bytes = used;
  return b;
}

__device__ float sum_of_warp(float value) {
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAll, value, step);
  return value;
}

__global__ void project_all(FourdSplatArgs s, Buffers b, int across) {
  const int64_t item = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (item >= int64_t(s.cameras) * s.count) return;
  const int c = int(item / s.count);
  Splat g = {};
  TileRange r = {1, 0, 1, 0};
  uint32_t count = 0;
  if (project(s, camera_of(s, c), item % s.count, &g, &r)) {
    for (int row = r.first_row; row <= r.last_row; row++)
      for (int col = r.first_col; col <= r.last_col; col++) count += reaches_tile(g, col, row);
  }
  b.splats[item] = g;
  b.ranges[item] = r;
  b.counts[item] = count;
  b.depths[item] = count ? __float_as_uint(g.z) : kAll;  // z > 0: its bits rise with it
  b.items[item] = uint32_t(item);
}

__global__ void counts_by_depth(Buffers b, int64_t items) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < items) b.sorted_counts[i] = b.counts[b.sorted[i]];
}

__global__ void write_pairs(FourdSplatArgs s, Buffers b, int across, int64_t tiles) {
  const int64_t items = int64_t(s.cameras) * s.count, i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= items) return;
  if (i == items - 1 && s.pair_count) *s.pair_count = int64_t(b.ends[i]);
  const uint32_t item = b.sorted[i], count = b.counts[item];
  if (count == 0 || b.ends[i] > uint64_t(s.pair_capacity)) return;
  const Splat g = b.splats[item];
  const TileRange r = b.ranges[item];
  uint32_t at = b.ends[i] - count;
  const uint32_t base = uint32_t(item / s.count * tiles);
  for (int row = r.first_row; row <= r.last_row; row++) {
    for (int col = r.first_col; col <= r.last_col; col++) {
      if (!reaches_tile(g, col, row)) continue;
      b.tiles[at] = base + uint32_t(row * across + col);
      b.pairs[at++] = item;
    }
  }
}

__global__ void find_tiles(Buffers b, int64_t room, int64_t tiles) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= room) return;
  const uint32_t tile = b.sorted_tiles[i];
  if (tile >= tiles) return;  // an empty place
  if (i == 0 || b.sorted_tiles[i - 1] != tile) b.first[tile] = uint32_t(i);
  if (i == room - 1 || b.sorted_tiles[i + 1] != tile) b.last[tile] = uint32_t(i) + 1;
}

// One pixel's place: its thread in the tile's block, 8 x 4 pixels to a warp.
struct Pixel {
  int col, row;
  bool inside;
  float x, y;
};

__device__ Pixel pixel_of(const FourdSplatArgs& s, int across) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int col = int(blockIdx.x) % across * kTile + warp % 2 * 8 + lane % 8, row = int(blockIdx.x) / across * kTile + warp / 2 * 4 + lane / 8;
  return {col, row, col < s.width && row < s.height, float(col) + 0.5f, float(row) + 0.5f};
}

// alpha of a Gaussian at a pixel; 0 below 1/255.
__device__ float alpha_at(const Splat& g, float x, float y) {
  const float dx = x - g.x, dy = y - g.y;
  const float exponent = dx * (g.a * dx + g.b * dy) + (g.c * dy * dy + g.log2_opacity);
  return exponent >= -kLog2Of255 ? fminf(exp2f(exponent), kMaxAlpha) : 0.0f;
}

// Blend `D` channels from number `offset` on; the pass with offset 0 also writes alpha and depth.
template <int D>
__global__ void blend(FourdSplatArgs s, Buffers b, int across, int64_t tiles, int offset) {
  __shared__ Splat batch[kThreads];
  __shared__ float batch_colors[kThreads * D];
  const int c = blockIdx.y;
  const Pixel pixel = pixel_of(s, across);
  const uint32_t end = b.last[c * tiles + blockIdx.x];
  const float* colors = s.colors + s.color_stride * c + offset;
  float t = 1.0f, depth = 0.0f, color[D] = {};
  bool ended = !pixel.inside;
  for (uint32_t start = b.first[c * tiles + blockIdx.x]; start < end; start += kThreads) {
    if (__syncthreads_count(ended) == kThreads) break;
    if (start + threadIdx.x < end) {
      const Splat g = b.splats[b.sorted_pairs[start + threadIdx.x]];
      batch[threadIdx.x] = g;
      for (int d = 0; d < D; d++) batch_colors[threadIdx.x * D + d] = colors[int64_t(g.index) * s.channels + d];
    }
    __syncthreads();
    const int count = int(end - start < kThreads ? end - start : kThreads);
    for (int j = 0; j < count && !ended; j++) {
      const float alpha = alpha_at(batch[j], pixel.x, pixel.y), after = t - t * alpha;
      if (alpha == 0.0f) continue;
      if (!(after > kMinTransmittance)) {
        ended = true;
        break;
      }
      const float weight = t * alpha;
      depth += weight * batch[j].z;
      for (int d = 0; d < D; d++) color[d] += weight * batch_colors[j * D + d];
      t = after;
    }
  }
  if (!pixel.inside) return;
  const int64_t at = (int64_t(c) * s.height + pixel.row) * s.width + pixel.col;
  if (s.image)
    for (int d = 0; d < D; d++) s.image[at * s.channels + offset + d] = color[d] + (s.background ? t * s.background[offset + d] : 0.0f);
  if (offset == 0 && s.alpha) s.alpha[at] = 1.0f - t;
  if (offset == 0 && s.depth_z) s.depth_z[at] = t < 1.0f ? depth / (1.0f - t) : 0.0f;
}

// Collect what each Gaussian gets from the pixels of a tile. D channels in registers, or (D = 0) any number read again and again.
template <int D>
__global__ void blend_back(FourdSplatBackwardArgs args, Buffers b, int across, int64_t tiles) {
  const FourdSplatArgs& s = args.scene;
  __shared__ Splat batch[kThreads];
  __shared__ uint32_t batch_items[kThreads];
  __shared__ int furthest;
  const int c = blockIdx.y, channels = D ? D : s.channels;
  const bool leader = threadIdx.x % kWarp == 0;
  const Pixel pixel = pixel_of(s, across);
  const uint32_t begin = b.first[c * tiles + blockIdx.x], end = b.last[c * tiles + blockIdx.x];
  const int total = int(end - begin);
  if (threadIdx.x == 0) furthest = 0;
  __syncthreads();

  // Front to back: the transmittance left and the number of Gaussians up to the last one that was drawn.
  float t = 1.0f;
  int drawn = 0;
  bool ended = !pixel.inside;
  for (int start = 0; start < total; start += kThreads) {
    if (__syncthreads_count(ended) == kThreads) break;
    if (start + int(threadIdx.x) < total) batch[threadIdx.x] = b.splats[b.sorted_pairs[begin + start + threadIdx.x]];
    __syncthreads();
    const int count = total - start < kThreads ? total - start : kThreads;
    for (int j = 0; j < count && !ended; j++) {
      const float alpha = alpha_at(batch[j], pixel.x, pixel.y), after = t - t * alpha;
      if (alpha == 0.0f) continue;
      if (!(after > kMinTransmittance)) {
        ended = true;
        break;
      }
      t = after;
      drawn = start + j + 1;
    }
  }
  atomicMax(&furthest, drawn);

  // The pixel's gradients, and the light behind everything.
  const int64_t at = (int64_t(c) * s.height + pixel.row) * s.width + pixel.col;
  const float* upstream = args.grad_image && pixel.inside ? args.grad_image + at * s.channels : nullptr;
  float by_color[D ? D : 1] = {}, by_depth = 0.0f, behind = 0.0f;
  if (pixel.inside) {
    if (args.grad_depth_z && s.alpha[at] > 0.0f) by_depth = args.grad_depth_z[at] / s.alpha[at];
    behind = by_depth * s.depth_z[at] - (args.grad_alpha ? args.grad_alpha[at] : 0.0f);
  }
  for (int d = 0; d < channels; d++) {
    const float g = upstream ? upstream[d] : 0.0f;
    if (D) by_color[D ? d : 0] = g;
    if (s.background) behind += g * s.background[d];
    if (args.grad_background) {
      const float sum = sum_of_warp(t * g);
      if (leader) atomicAdd(args.grad_background + d, sum);
    }
  }
  __syncthreads();

  // Back to front, as collect_tile in splat_backward_kernels.inl.
  const float* colors = s.colors + s.color_stride * c;
  for (int start = (furthest - 1) / kThreads * kThreads; start >= 0 && furthest > 0; start -= kThreads) {
    __syncthreads();
    if (start + int(threadIdx.x) < furthest) {
      batch_items[threadIdx.x] = b.sorted_pairs[begin + start + threadIdx.x];
      batch[threadIdx.x] = b.splats[batch_items[threadIdx.x]];
    }
    __syncthreads();
    const int count = furthest - start < kThreads ? furthest - start : kThreads;
    for (int j = count - 1; j >= 0; j--) {
      const Splat& g = batch[j];
      const float alpha = start + j < drawn ? alpha_at(g, pixel.x, pixel.y) : 0.0f;
      if (!__any_sync(kAll, alpha > 0.0f)) continue;
      const float* color = colors + int64_t(g.index) * s.channels;
      const float before = t / (1.0f - alpha), weight = before * alpha;
      float light = by_depth * g.z;
      for (int d = 0; d < channels; d++) light += (D ? by_color[D ? d : 0] : upstream ? upstream[d] : 0.0f) * color[d];
      const float difference = light - behind, dx = pixel.x - g.x, dy = pixel.y - g.y;
      const float e = alpha < kMaxAlpha ? weight * difference : 0.0f;
      behind += alpha * difference;
      t = before;
      const float parts[kSums] = {e, e * dx, e * dy, e * dx * dx, e * dx * dy, e * dy * dy, weight * by_depth};
      float* const sums = b.sums + int64_t(batch_items[j]) * kSums;
      for (int i = 0; i < kSums; i++) {
        const float sum = sum_of_warp(parts[i]);
        if (leader) atomicAdd(sums + i, sum);
      }
      float* const grad_color = args.grad_colors + s.color_stride * c + int64_t(g.index) * s.channels;
      for (int d = 0; d < channels; d++) {
        const float sum = sum_of_warp(weight * (D ? by_color[D ? d : 0] : upstream ? upstream[d] : 0.0f));
        if (leader) atomicAdd(grad_color + d, sum);
      }
    }
  }
}

__global__ void project_all_back(FourdSplatBackwardArgs args, Buffers b) {
  const FourdSplatArgs& s = args.scene;
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  float out[10] = {};
  for (int c = 0; c < s.cameras; c++) {
    float camera[12] = {};
    const int64_t item = c * s.count + n;
    const bool seen = n < s.count && b.counts[item] > 0;
    if (seen) project_back(s, camera_of(s, c), n, b.sums + item * kSums, out, camera);
    if (!__any_sync(kAll, seen)) continue;
    for (int d = 0; d < 12; d++) {
      const float sum = sum_of_warp(camera[d]);
      if (threadIdx.x % kWarp == 0) atomicAdd(args.grad_world_to_camera + 16 * c + d, sum);
    }
  }
  if (n >= s.count) return;
  for (int d = 0; d < 3; d++) args.grad_means[3 * n + d] += out[d];
  for (int d = 0; d < 6; d++) args.grad_covariances[6 * n + d] += out[3 + d];
  args.grad_opacities[n] += out[9];
}

bool valid(const FourdSplatArgs& s) {
  const int64_t items = int64_t(s.cameras) * s.count, tiles = int64_t(s.cameras) * tiles_across(s) * tiles_down(s);
  return s.count >= 0 && s.cameras >= 0 && s.cameras <= 65535 && items < INT32_MAX && tiles < INT32_MAX && s.width >= 1 &&
         s.height >= 1 && tiles_across(s) < 32768 && tiles_down(s) < 32768 && s.channels >= 1 && s.near_z > 0.0f && !s.image_u8 &&
         s.pair_capacity >= 1 && s.pair_capacity < INT32_MAX;
}

// Steps 1 to 4.
int list_pairs(const FourdSplatArgs& s, const Buffers& b, cudaStream_t stream) {
  const int64_t items = int64_t(s.cameras) * s.count, tiles = int64_t(tiles_across(s)) * tiles_down(s);
  const int across = tiles_across(s), blocks = blocks_for(items, kThreads);
  cudaMemsetAsync(b.first, 0, size_t(s.cameras * tiles) * sizeof(uint32_t), stream);
  cudaMemsetAsync(b.last, 0, size_t(s.cameras * tiles) * sizeof(uint32_t), stream);
  cudaMemsetAsync(b.tiles, 0xff, size_t(s.pair_capacity) * sizeof(uint32_t), stream);
  if (s.pair_count) cudaMemsetAsync(s.pair_count, 0, sizeof(int64_t), stream);
  if (items == 0) return kOk;
  FOURD_LAUNCH(project_all, blocks, kThreads, stream, s, b, across);
  size_t bytes = b.temporary_bytes;
  cub::DeviceRadixSort::SortPairs(b.temporary, bytes, b.depths, b.sorted_depths, b.items, b.sorted, int(items), 0, 32, stream);
  FOURD_LAUNCH(counts_by_depth, blocks, kThreads, stream, b, items);
  bytes = b.temporary_bytes;
  cub::DeviceScan::InclusiveSum(b.temporary, bytes, b.sorted_counts, b.ends, int(items), stream);
  FOURD_LAUNCH(write_pairs, blocks, kThreads, stream, s, b, across, tiles);
  bytes = b.temporary_bytes;
  cub::DeviceRadixSort::SortPairs(b.temporary, bytes, b.tiles, b.sorted_tiles, b.pairs, b.sorted_pairs, int(s.pair_capacity), 0,
                                  bits_of(s.cameras * tiles), stream);
  FOURD_LAUNCH(find_tiles, blocks_for(s.pair_capacity, kThreads), kThreads, stream, b, s.pair_capacity, s.cameras * tiles);
  return launched();
}

}  // namespace
}  // namespace fourd

// Bytes of scratch memory for these sizes and pair_capacity; -1 where they are out of range.
FOURD_EXPORT int64_t fourd_splat_scratch_cuda(const FourdSplatArgs* args, int32_t backward) {
  if (!fourd::valid(*args)) return -1;
  FourdSplatArgs s = *args;
  s.scratch = nullptr;
  return int64_t(fourd::buffers_of(s, backward != 0).bytes);
}

FOURD_EXPORT int fourd_splat_cuda(const FourdSplatArgs* args, cudaStream_t stream) {
  using namespace fourd;
  const FourdSplatArgs& s = *args;
  if (!valid(s)) return kBadArgument;
  const Buffers b = buffers_of(s, false);
  if (!s.scratch || int64_t(b.bytes) > s.scratch_bytes) return kBadArgument;
  if (s.cameras == 0) return kOk;
  const int across = tiles_across(s);
  const int64_t tiles = int64_t(across) * tiles_down(s);
  const int status = list_pairs(s, b, stream);
  if (status != kOk) return status;
  const dim3 grid(unsigned(tiles), unsigned(s.cameras));
  for (int offset = 0; offset < s.channels; offset += 4) {
    const int left = s.channels - offset;
    if (left == 1) FOURD_LAUNCH(blend<1>, grid, kThreads, stream, s, b, across, tiles, offset);
    else if (left == 2) FOURD_LAUNCH(blend<2>, grid, kThreads, stream, s, b, across, tiles, offset);
    else if (left == 3) FOURD_LAUNCH(blend<3>, grid, kThreads, stream, s, b, across, tiles, offset);
    else FOURD_LAUNCH(blend<4>, grid, kThreads, stream, s, b, across, tiles, offset);
  }
  return launched();
}

FOURD_EXPORT int fourd_splat_backward_cuda(const FourdSplatBackwardArgs* args, cudaStream_t stream) {
  using namespace fourd;
  const FourdSplatArgs& s = args->scene;
  if (!valid(s) || !s.alpha || !s.depth_z) return kBadArgument;
  const Buffers b = buffers_of(s, true);
  if (!s.scratch || int64_t(b.bytes) > s.scratch_bytes) return kBadArgument;
  if (s.cameras == 0) return kOk;
  const int across = tiles_across(s);
  const int64_t tiles = int64_t(across) * tiles_down(s);
  const int status = list_pairs(s, b, stream);
  if (status != kOk) return status;
  cudaMemsetAsync(b.sums, 0, size_t(s.cameras) * s.count * kSums * sizeof(float), stream);
  const dim3 grid(unsigned(tiles), unsigned(s.cameras));
  if (s.channels == 3) FOURD_LAUNCH(blend_back<3>, grid, kThreads, stream, *args, b, across, tiles);
  else FOURD_LAUNCH(blend_back<0>, grid, kThreads, stream, *args, b, across, tiles);
  if (s.count > 0) FOURD_LAUNCH(project_all_back, blocks_for(s.count, kThreads), kThreads, stream, *args, b);
  return launched();
}
