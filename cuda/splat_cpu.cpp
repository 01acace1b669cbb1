// Gaussian splatting on the CPU; contract in splat.h.
//
// One parallel region, two barriers: (1) project blocks of Gaussians with vector code and list the (tile, Gaussian) pairs, leaving
// out tiles that the exact ellipse alpha >= 1/255 does not touch; (2) counting-sort the pairs into tiles; (3) per tile: sort by depth
// (in cache), blend front to back, write. Sorting per tile needs no global sort, and its keys (depth, index) are unique, so the
// order in which threads found the pairs has no influence on a single bit.
#include "splat.h"

#include <algorithm>
#include <atomic>
#include <cmath>

namespace fourd {
namespace {

constexpr int kTile = 16;
constexpr int kBlock = 128;        // Gaussians transposed at a time
constexpr int kChunk = 2048;       // Gaussians a thread takes at a time
constexpr float kMaxAlpha = 0.999f;
constexpr float kMinTransmittance = 1e-4f;
constexpr float kLog2Of255 = 7.994353436858858f;
constexpr float kHalfLog2E = 0.7213475204444817f;  // 0.5 * log2(e): exp(-q/2) = 2^(-kHalfLog2E q)

struct CameraConstants {
  float r[9], t[3];
  float fx, fy, cx, cy;
  float u_min, u_max, v_min, v_max;
  float width, height, eps2d, near_z;
  bool antialiased;
};

struct ProjectBlock {
  alignas(64) float in[10][kBlock];
  alignas(64) float out[14][kBlock];
};

// One cache line per Gaussian. log2 alpha at offset (dx, dy) = a dx^2 + b dx dy + c dy^2 + log2_opacity; for a given dy it is
// largest at dx = k dy.
struct alignas(64) Projected {
  float x, y, a, b, c, k, log2_opacity, z;
  float color[3];
  uint32_t index;
  float unused[4];
};

struct TileBuffer {
  float x, y;            // first pixel
  float* transmittance;  // [kTile * kTile], negative = ended
  float* depth;
  float* color;          // [D, kTile * kTile]
};

#define FOURD_WIDTH 4
namespace plain {
#include "simd.inl"
#include "splat_kernels.inl"
}  // namespace plain
#undef FOURD_INLINE
#undef FOURD_WIDTH

#if FOURD_X86
FOURD_BEGIN_TARGET(FOURD_AVX2)
#define FOURD_WIDTH 8
namespace avx2 {
#include "simd.inl"
#include "splat_kernels.inl"
}  // namespace avx2
#undef FOURD_INLINE
#undef FOURD_WIDTH
FOURD_END_TARGET

FOURD_BEGIN_TARGET(FOURD_AVX512)
#define FOURD_WIDTH 16
namespace avx512 {
#include "simd.inl"
#include "splat_kernels.inl"
}  // namespace avx512
#undef FOURD_INLINE
#undef FOURD_WIDTH
FOURD_END_TARGET
#endif

struct Kernels {
  void (*project)(ProjectBlock*, const CameraConstants&, int);
  void (*blend)(const Projected*, const uint64_t*, int64_t, TileBuffer*, const float*, int, bool);
};

Kernels kernels() {
#if FOURD_X86
  if (instruction_set() == kAvx512) return {avx512::project_block, avx512::blend};
  if (instruction_set() == kAvx2) return {avx2::project_block, avx2::blend};
#endif
  return {plain::project_block, plain::blend};
}

struct Pair {
  uint32_t tile, index;
};

struct ThreadScratch {
  ProjectBlock block;
  Scratch<Pair> pairs;
  size_t pair_count;
  Scratch<int64_t> counts;  // per tile; after the prefix sum: where this thread writes next
  Scratch<uint64_t> sort;
  Scratch<float> tile;
};

struct Workspace {
  Scratch<Projected> projected;
  Scratch<uint64_t> order;
  Scratch<int64_t> starts;
  ThreadScratch* threads = nullptr;
  int thread_count = 0;
  ~Workspace() { delete[] threads; }
  void reserve_threads(int n) {
    if (n <= thread_count) return;
    delete[] threads;
    threads = nullptr;
    thread_count = 0;
    threads = new ThreadScratch[n];
    thread_count = n;
  }
};

CameraConstants camera_constants(const FourdSplatArgs& s) {
  CameraConstants cam;
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 3; j++) cam.r[3 * i + j] = s.world_to_camera[4 * i + j];
    cam.t[i] = s.world_to_camera[4 * i + 3];
  }
  cam.fx = s.intrinsics[0];
  cam.fy = s.intrinsics[4];
  cam.cx = s.intrinsics[2];
  cam.cy = s.intrinsics[5];
  cam.width = float(s.width);
  cam.height = float(s.height);
  // The derivative of the projection grows without bound off to the side; its direction stops 0.3 half-fields beyond the edge.
  const float margin_u = 0.3f * 0.5f * cam.width / cam.fx, margin_v = 0.3f * 0.5f * cam.height / cam.fy;
  cam.u_min = -(cam.cx / cam.fx + margin_u);
  cam.u_max = (cam.width - cam.cx) / cam.fx + margin_u;
  cam.v_min = -(cam.cy / cam.fy + margin_v);
  cam.v_max = (cam.height - cam.cy) / cam.fy + margin_v;
  cam.eps2d = s.eps2d;
  cam.near_z = s.near_z;
  cam.antialiased = s.antialiased != 0;
  return cam;
}

void transpose_in(const FourdSplatArgs& s, int64_t first, int n, ProjectBlock* block) {
  const float* m = s.means + 3 * first;
  const float* c = s.covariances + 6 * first;
  const float* o = s.opacities + first;
  for (int i = 0; i < n; i++) {
    for (int d = 0; d < 3; d++) block->in[d][i] = m[3 * i + d];
    for (int d = 0; d < 6; d++) block->in[3 + d][i] = c[6 * i + d];
    block->in[9][i] = o[i];
  }
  for (int i = n; i % 16 != 0; i++)  // the last vector may be partly empty
    for (int d = 0; d < 10; d++) block->in[d][i] = 0.0f;
}

// List the tiles that the ellipse touches. In each band of tile rows the part of the ellipse inside is convex, so it reaches
// exactly the tiles of one interval: from its leftmost to its rightmost point there.
void list_tiles(const Projected& g, float rx, float ry, int col0, int col1, int row0, int row1, int tiles_x, ThreadScratch* t) {
  const int tx0 = col0 / kTile, tx1 = col1 / kTile, ty0 = row0 / kTile, ty1 = row1 / kTile;
  const size_t most = size_t(tx1 - tx0 + 1) * size_t(ty1 - ty0 + 1);
  Pair* out = t->pairs.grow(t->pair_count + most, t->pair_count) + t->pair_count;
  int64_t* counts = t->counts.data();
  size_t added = 0;
  if (most == 1) {
    out[added++] = {uint32_t(ty0 * tiles_x + tx0), g.index};
    counts[ty0 * tiles_x + tx0]++;
  } else {
    const float dy_right = -0.5f * g.b / g.c * rx;  // height of the rightmost point
    const float inverse_2a = 0.5f / g.a;
    const float room = g.log2_opacity + kLog2Of255;
    for (int ty = ty0; ty <= ty1; ty++) {
      const float low = std::max(-ry, float(ty * kTile) + 0.5f - g.y);
      const float high = std::min(ry, float(ty * kTile + kTile - 1) + 0.5f - g.y);
      if (low > high) continue;
      const auto half_width = [&](float dy) {
        const float inside = g.b * g.b * dy * dy - 4.0f * g.a * (g.c * dy * dy + room);
        return -inverse_2a * std::sqrt(std::max(inside, 0.0f));
      };
      const float at_right = std::min(std::max(dy_right, low), high), at_left = std::min(std::max(-dy_right, low), high);
      const float right = at_right == dy_right ? rx : g.k * at_right + half_width(at_right);
      const float left = at_left == -dy_right ? -rx : g.k * at_left - half_width(at_left);
      // pixels, with a thousandth of slack for rounding
      const float first = std::max(g.x + left - 0.501f, float(col0)), last = std::min(g.x + right - 0.499f, float(col1));
      if (!(first <= last + 1.0f)) continue;
      const int from = std::max(int(std::ceil(first)) / kTile, tx0), to = std::min(int(last) / kTile, tx1);
      for (int tx = from; tx <= to; tx++) {
        out[added++] = {uint32_t(ty * tiles_x + tx), g.index};
        counts[ty * tiles_x + tx]++;
      }
    }
  }
  t->pair_count += added;
}

void project_chunk(const FourdSplatArgs& s, const CameraConstants& cam, const Kernels& k, int64_t begin, int64_t end, int tiles_x,
                   Projected* projected, ThreadScratch* t) {
  ProjectBlock* block = &t->block;
  for (int64_t first = begin; first < end; first += kBlock) {
    const int n = int(std::min<int64_t>(kBlock, end - first));
    transpose_in(s, first, n, block);
    k.project(block, cam, n);
    for (int i = 0; i < n; i++) {
      const int col0 = int(block->out[10][i]), col1 = int(block->out[11][i]);
      if (col0 > col1) continue;
      Projected& g = projected[first + i];
      g.x = block->out[0][i];
      g.y = block->out[1][i];
      g.a = block->out[2][i];
      g.b = block->out[3][i];
      g.c = block->out[4][i];
      g.k = block->out[5][i];
      g.log2_opacity = block->out[6][i];
      g.z = block->out[7][i];
      g.index = uint32_t(first + i);
      if (s.channels == 3) std::memcpy(g.color, s.colors + 3 * (first + i), sizeof(g.color));
      list_tiles(g, block->out[8][i], block->out[9][i], col0, col1, int(block->out[12][i]), int(block->out[13][i]), tiles_x, t);
    }
  }
}

// Sort unique keys (depth bits, index), ascending.
void sort_keys(uint64_t* keys, int64_t n, Scratch<uint64_t>* scratch) {
  if (n <= 32) {
    for (int64_t i = 1; i < n; i++) {
      const uint64_t key = keys[i];
      int64_t j = i;
      for (; j > 0 && keys[j - 1] > key; j--) keys[j] = keys[j - 1];
      keys[j] = key;
    }
    return;
  }
  // Radix sort of the depth bits that differ within the tile. The keys come in rising index only from one thread, so the index
  // cannot be left to stability; equal depths (rare) are put right afterwards.
  uint32_t low = UINT32_MAX, high = 0;
  for (int64_t i = 0; i < n; i++) {
    const uint32_t d = uint32_t(keys[i] >> 32);
    low = std::min(low, d);
    high = std::max(high, d);
  }
  const uint32_t range = high - low;
  const int digit = n < 2048 ? 8 : 11;
  const uint32_t radix = 1u << digit;
  uint64_t* other = scratch->reserve(size_t(n));
  uint64_t* from = keys;
  uint64_t* to = other;
  uint32_t counts[2048];
  for (int shift = 0; shift < 32 && (range >> shift) != 0; shift += digit) {
    std::memset(counts, 0, radix * sizeof(uint32_t));
    for (int64_t i = 0; i < n; i++) counts[((uint32_t(from[i] >> 32) - low) >> shift) & (radix - 1)]++;
    uint32_t sum = 0;
    for (uint32_t b = 0; b < radix; b++) {
      const uint32_t c = counts[b];
      counts[b] = sum;
      sum += c;
    }
    for (int64_t i = 0; i < n; i++) to[counts[((uint32_t(from[i] >> 32) - low) >> shift) & (radix - 1)]++] = from[i];
    std::swap(from, to);
  }
  if (from != keys) std::memcpy(keys, from, size_t(n) * sizeof(uint64_t));
  for (int64_t i = 1; i < n; i++) {
    if (keys[i - 1] < keys[i]) continue;
    int64_t end = i + 1;  // a run of equal depth in the wrong order
    while (end < n && (keys[end] >> 32) == (keys[i] >> 32)) end++;
    int64_t begin = i - 1;
    while (begin > 0 && (keys[begin - 1] >> 32) == (keys[i] >> 32)) begin--;
    std::sort(keys + begin, keys + end);
    i = end;
  }
}

inline uint8_t to_u8(float x) { return uint8_t(std::min(std::max(x, 0.0f), 1.0f) * 255.0f + 0.5f); }

void write_u8(const FourdSplatArgs& s, const TileBuffer& tile, int x0, int y0, int cols, int rows) {
  const float scale = 1.0f / 255.0f;
  for (int r = 0; r < rows; r++) {
    const size_t at = (size_t(y0 + r) * s.width + x0) * 3;
    uint8_t* out = s.image_u8 + at;
    const float* t = tile.transmittance + r * kTile;
    for (int d = 0; d < 3; d++) {
      const float* c = tile.color + d * kTile * kTile + r * kTile;
      const float flat = s.background ? s.background[d] : 0.0f;
      if (s.background_u8) {
        const uint8_t* b = s.background_u8 + at;
        for (int i = 0; i < cols; i++) out[3 * i + d] = to_u8(c[i] + std::fabs(t[i]) * (float(b[3 * i + d]) * scale));
      } else {
        for (int i = 0; i < cols; i++) out[3 * i + d] = to_u8(c[i] + std::fabs(t[i]) * flat);
      }
    }
  }
}

void write_tile(const FourdSplatArgs& s, const TileBuffer& tile, int x0, int y0) {
  const int cols = std::min(kTile, s.width - x0), rows = std::min(kTile, s.height - y0);
  for (int r = 0; r < rows; r++) {
    const size_t at = size_t(y0 + r) * s.width + x0;
    const float* t = tile.transmittance + r * kTile;
    if (s.image) {
      for (int d = 0; d < s.channels; d++) {
        const float* c = tile.color + size_t(d) * kTile * kTile + r * kTile;
        const float back = s.background ? s.background[d] : 0.0f;
        float* out = s.image + at * s.channels + d;
        for (int i = 0; i < cols; i++) out[size_t(i) * s.channels] = c[i] + std::fabs(t[i]) * back;
      }
    }
    if (s.alpha)
      for (int i = 0; i < cols; i++) s.alpha[at + i] = 1.0f - std::fabs(t[i]);
    if (s.depth_z) {
      const float* z = tile.depth + r * kTile;
      for (int i = 0; i < cols; i++) {
        const float seen = 1.0f - std::fabs(t[i]);
        s.depth_z[at + i] = seen > 0.0f ? z[i] / seen : 0.0f;
      }
    }
  }
  if (s.image_u8) write_u8(s, tile, x0, y0, cols, rows);
}

void draw_tile(const FourdSplatArgs& s, const Kernels& k, const Projected* projected, uint64_t* order, int64_t count, int x0, int y0,
               ThreadScratch* t) {
  constexpr int kPixels = kTile * kTile;
  float* memory = t->tile.reserve(size_t(kPixels) * (2 + s.channels));
  TileBuffer tile{float(x0), float(y0), memory, memory + kPixels, memory + 2 * kPixels};
  std::memset(tile.depth, 0, size_t(kPixels) * (1 + s.channels) * sizeof(float));
  const int cols = std::min(kTile, s.width - x0), rows = std::min(kTile, s.height - y0);
  for (int r = 0; r < kTile; r++)  // pixels beyond the picture have ended from the start
    for (int c = 0; c < kTile; c++) tile.transmittance[r * kTile + c] = (r < rows && c < cols) ? 1.0f : -1.0f;
  if (count > 0) {
    sort_keys(order, count, &t->sort);
    k.blend(projected, order, count, &tile, s.colors, s.channels, s.depth_z != nullptr);
  }
  write_tile(s, tile, x0, y0);
}

// After the prefix sum, counts[thread][tile] says where that thread's pairs of that tile go.
int64_t prefix_sum(Workspace* w, int threads, int64_t tiles) {
  int64_t sum = 0;
  for (int64_t tile = 0; tile < tiles; tile++) {
    w->starts.data()[tile] = sum;
    for (int t = 0; t < threads; t++) {
      int64_t& c = w->threads[t].counts.data()[tile];
      const int64_t here = c;
      c = sum;
      sum += here;
    }
  }
  w->starts.data()[tiles] = sum;
  return sum;
}

int run(const FourdSplatArgs& s, Workspace* w) {
  const CameraConstants cam = camera_constants(s);
  const Kernels k = kernels();
  const int tiles_x = (s.width + kTile - 1) / kTile, tiles_y = (s.height + kTile - 1) / kTile;
  const int64_t tiles = int64_t(tiles_x) * tiles_y;
  const int asked = max_threads(s.threads);
  Projected* projected = w->projected.reserve(size_t(s.count) + 1);
  w->starts.reserve(size_t(tiles) + 1);
  w->reserve_threads(asked);
  for (int t = 0; t < asked; t++) {
    w->threads[t].pair_count = 0;
    std::memset(w->threads[t].counts.reserve(size_t(tiles)), 0, size_t(tiles) * sizeof(int64_t));
  }
  std::atomic<int> status{kOk};
  std::atomic<int64_t> next_chunk{0}, next_tile{0};

#if defined(_OPENMP)
#pragma omp parallel num_threads(asked)
#endif
  {
    ThreadScratch* mine = &w->threads[thread_index()];
    try {
      for (int64_t begin; (begin = next_chunk.fetch_add(kChunk)) < s.count;)
        project_chunk(s, cam, k, begin, std::min<int64_t>(begin + kChunk, s.count), tiles_x, projected, mine);
    } catch (const std::bad_alloc&) {
      status = kOutOfMemory;
    }
#if defined(_OPENMP)
#pragma omp barrier
#pragma omp single
#endif
    {
      try {
        w->order.reserve(size_t(prefix_sum(w, asked, tiles)) + 1);
      } catch (const std::bad_alloc&) {
        status = kOutOfMemory;
      }
    }
    if (status == kOk) {
      uint64_t* order = w->order.data();
      int64_t* next = mine->counts.data();
      const Pair* pairs = mine->pairs.data();
      for (size_t p = 0; p < mine->pair_count; p++) {
        uint32_t depth_bits;
        std::memcpy(&depth_bits, &projected[pairs[p].index].z, sizeof(depth_bits));  // z > 0: its bits sort as it does
        order[next[pairs[p].tile]++] = (uint64_t(depth_bits) << 32) | pairs[p].index;
      }
    }
#if defined(_OPENMP)
#pragma omp barrier
#endif
    if (status == kOk) {
      try {
        const int64_t* starts = w->starts.data();
        for (int64_t tile; (tile = next_tile.fetch_add(1)) < tiles;)
          draw_tile(s, k, projected, w->order.data() + starts[tile], starts[tile + 1] - starts[tile], int(tile % tiles_x) * kTile,
                    int(tile / tiles_x) * kTile, mine);
      } catch (const std::bad_alloc&) {
        status = kOutOfMemory;
      }
    }
  }
  return status;
}

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_splat_forward(const FourdSplatArgs* args) {
  if (args->count < 0 || args->count >= INT32_MAX || args->width < 1 || args->height < 1 || args->channels < 1 ||
      !(args->near_z > 0.0f) || (args->image_u8 && args->channels != 3))
    return fourd::kBadArgument;
  static thread_local fourd::Workspace workspace;
  try {
    return fourd::run(*args, &workspace);
  } catch (const std::bad_alloc&) {
    return fourd::kOutOfMemory;
  }
}
