// Gaussian splatting on the CPU; contract in splat.h.
//
// Three steps, each in parallel: (1) project blocks of Gaussians with vector code and list the (tile, Gaussian) pairs, leaving
// out tiles that the exact ellipse alpha >= 1/255 does not touch; (2) counting-sort the pairs into tiles; (3) per tile: sort by depth
// (in cache), blend front to back, write. Sorting per tile needs no global sort, and its keys (depth, index) are unique, so the
// order in which threads found the pairs has no influence on a single bit. The backward pass is in splat_backward.inl.
#include "splat.h"

#include <algorithm>
#include <cmath>

#include "parallel.h"

namespace fourd {
namespace {

constexpr int kTile = 16;
constexpr int kSide = 4;                            // a tile is drawn in blocks of kSide x kSide pixels
constexpr int kPixels = kSide * kSide;              // of a block
constexpr int kBlocks = (kTile / kSide) * (kTile / kSide);
constexpr int kBatch = 128;        // Gaussians transposed at a time
constexpr int kChunk = 2048;       // Gaussians a thread takes at a time
constexpr int kLarge = 16;         // in ProjectBatch::tiles: more than 2 x 2 tiles
constexpr int kSpare = 8;          // pairs that may be written beyond the last one
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

struct ProjectBatch {
  alignas(64) float in[10][kBatch];
  alignas(64) float out[11][kBatch];   // x y a b c k_x k_y log2_opacity z, half extents in x and y
  alignas(64) int32_t tiles[kBatch];   // 0 = not visible; bits 0..3 = tiles of the 2 x 2 from the first one; kLarge = more
  alignas(64) int32_t range[4][kBatch];  // first and last tile column, first and last tile row
};

// One cache line per Gaussian. log2 alpha at offset (dx, dy) = a dx^2 + b dx dy + c dy^2 + log2_opacity; for a given dy it is
// largest at dx = k_x dy, for a given dx at dy = k_y dx.
struct alignas(64) Projected {
  float x, y, a, b, c, k_x, k_y, log2_opacity, z;
  float color[3];
  uint32_t index;
  float unused[3];
};

struct TileBuffer {
  float x, y;     // first pixel
  float* state;   // per block: transmittance (negative = ended), depth, D colours, each for kPixels pixels
  size_t stride;  // floats from block to block
};

constexpr int kSums = 7;  // what a Gaussian collects in a tile, before its colours: sums of e (1, dx, dy, dx^2, dx dy, dy^2) and of the depth

// One Gaussian in one block of a tile, on the way from front to back.
struct alignas(64) Visit {
  float alpha[kPixels], before[kPixels];
  uint32_t gaussian, block;  // gaussian: place in the tile's order
};

// Of a tile, block by block: the gradient by the sum of depths, then by each colour (stride floats a block), and the light that comes
// from behind (kPixels a block; see collect_tile).
struct PixelGradients {
  float x, y;
  const float* gradient;
  size_t stride;
  float* behind;
};

struct GradientBatch {
  alignas(64) float in[10][kBatch];      // as ProjectBatch::in
  alignas(64) float sums[kSums][kBatch];
  alignas(64) float touched[kBatch];     // 1 where any tile gave something, else 0
  alignas(64) float out[10][kBatch];     // gradients of `in`
  alignas(64) float camera[12][16];
};

void more_visits(Scratch<Visit>* visits, size_t used) { visits->grow(used + 16 * kBlocks, used); }

// Pixels of a block and blocks of a tile, both row by row.
alignas(64) constexpr float kPixelX[kPixels] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
alignas(64) constexpr float kPixelY[kPixels] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
alignas(64) constexpr float kBlockX[kBlocks] = {0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12};
alignas(64) constexpr float kBlockY[kBlocks] = {0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12};

#define FOURD_KERNELS_FILE "splat_kernels.inl"
#include "instruction_sets.inl"

struct Kernels {
  void (*project)(ProjectBatch*, const CameraConstants&, int);
  void (*blend)(const Projected*, const uint64_t*, int64_t, const TileBuffer&, const float*, int, bool);
  void (*finish)(const TileBuffer&, const uint8_t*, uint8_t*);
  int64_t (*record)(const Projected*, const uint64_t*, int64_t, float, float, float*, Scratch<Visit>*);
  void (*collect)(const Projected*, const uint64_t*, const Visit*, int64_t, const PixelGradients&, const float*, int, float*, float*);
  void (*project_back)(GradientBatch*, const CameraConstants&, int, double*);
};

#define FOURD_KERNELS(set) \
  Kernels { set::project_batch, set::blend, set::finish, set::record, set::collect, set::project_back }

Kernels kernels() {
#if FOURD_X86
  if (instruction_set() == kAvx512) return FOURD_KERNELS(avx512);
  if (instruction_set() == kAvx2) return FOURD_KERNELS(avx2);
#endif
  return FOURD_KERNELS(plain);
}

struct Pair {
  uint64_t key;  // depth bits, index: unique, and sorts as the depth does (z > 0)
  uint32_t tile;
};

struct ThreadScratch {
  ProjectBatch batch;
  Scratch<Pair> pairs;
  size_t pair_count;
  Scratch<int64_t> counts;  // per tile; after the prefix sum: where this thread writes next
  Scratch<uint64_t> sort;
  Scratch<float> tile;
  Scratch<Visit> visits;
  GradientBatch gradients;
};

struct Workspace {
  Scratch<Projected> projected;
  Scratch<uint64_t> order;
  Scratch<int64_t> starts;
  Scratch<float> pair_sums, sums, background;
  Scratch<double> camera;
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

void transpose_in(const FourdSplatArgs& s, int64_t first, int n, float in[10][kBatch]) {
  const float* m = s.means + 3 * first;
  const float* c = s.covariances + 6 * first;
  const float* o = s.opacities + first;
  for (int i = 0; i < n; i++) {
    for (int d = 0; d < 3; d++) in[d][i] = m[3 * i + d];
    for (int d = 0; d < 6; d++) in[3 + d][i] = c[6 * i + d];
    in[9][i] = o[i];
  }
  for (int i = n; i % 16 != 0; i++)  // the last vector may be partly empty
    for (int d = 0; d < 10; d++) in[d][i] = 0.0f;
}

// List the tiles that a large ellipse touches. In each band of tile rows the part of the ellipse inside is convex, so it reaches
// exactly the tiles of one interval: from its leftmost to its rightmost point there.
void list_large(const Projected& g, uint64_t key, float rx, float ry, const int range[4], int tiles_x, ThreadScratch* t) {
  const int tx0 = range[0], tx1 = range[1], ty0 = range[2], ty1 = range[3];
  t->pairs.grow(t->pair_count + size_t(tx1 - tx0 + 1) * size_t(ty1 - ty0 + 1) + kSpare, t->pair_count);
  Pair* out = t->pairs.data() + t->pair_count;
  int64_t* counts = t->counts.data();
  const bool one_line = tx0 == tx1 || ty0 == ty1;  // the extent is tight, so the ellipse reaches all of them
  const float dy_right = g.k_y * rx;               // height of the rightmost point; the leftmost lies opposite
  const float inverse_2a = 0.5f / g.a, b2 = g.b * g.b - 4.0f * g.a * g.c;
  const float four_a_room = 4.0f * g.a * (g.log2_opacity + kLog2Of255);
  for (int ty = ty0; ty <= ty1; ty++) {
    int from = tx0, to = tx1;
    if (!one_line) {
      const float low = std::max(-ry, float(ty * kTile) + 0.5f - g.y);
      const float high = std::min(ry, float(ty * kTile + kTile - 1) + 0.5f - g.y);
      const float at_right = std::min(std::max(dy_right, low), high), at_left = std::min(std::max(-dy_right, low), high);
      const float inside_right = b2 * at_right * at_right - four_a_room, inside_left = b2 * at_left * at_left - four_a_room;
      const float right = g.k_x * at_right - inverse_2a * std::sqrt(std::max(inside_right, 0.0f));
      const float left = g.k_x * at_left + inverse_2a * std::sqrt(std::max(inside_left, 0.0f));
      // in pixels, with a hundredth of slack for rounding
      from = int(std::max(g.x + left - 0.51f, float(tx0 * kTile))) / kTile;
      to = int(std::min(g.x + right - 0.49f, float(tx1 * kTile + kTile - 1))) / kTile;
    }
    for (int tile = ty * tiles_x + from; tile <= ty * tiles_x + to; tile++) {
      *out++ = {key, uint32_t(tile)};
      counts[tile]++;
    }
  }
  t->pair_count = size_t(out - t->pairs.data());
}

// List the tiles of a small one without a branch: all four of the 2 x 2 are written, and those that do not count written over.
inline void list_small(uint64_t key, int tiles, int tile, int tiles_x, ThreadScratch* t) {
  Pair* out = t->pairs.data() + t->pair_count;
  int64_t* counts = t->counts.data();
  const Pair candidates[4] = {
      {key, uint32_t(tile)}, {key, uint32_t(tile + 1)}, {key, uint32_t(tile + tiles_x)}, {key, uint32_t(tile + tiles_x + 1)}};
  for (int i = 0; i < 4; i++) {
    const int here = (tiles >> i) & 1;
    *out = candidates[i];
    out += here;
    counts[candidates[i].tile] += here;
  }
  t->pair_count = size_t(out - t->pairs.data());
}

void project_chunk(const FourdSplatArgs& s, const CameraConstants& cam, const Kernels& k, int64_t begin, int64_t end, int tiles_x,
                   Projected* projected, ThreadScratch* t) {
  ProjectBatch* batch = &t->batch;
  for (int64_t first = begin; first < end; first += kBatch) {
    const int n = int(std::min<int64_t>(kBatch, end - first));
    transpose_in(s, first, n, batch->in);
    k.project(batch, cam, n);
    t->pairs.grow(t->pair_count + size_t(n) * 4 + kSpare, t->pair_count);
    for (int i = 0; i < n; i++) {
      const int tiles = batch->tiles[i];
      if (tiles == 0) continue;
      Projected& g = projected[first + i];
      g.x = batch->out[0][i];
      g.y = batch->out[1][i];
      g.a = batch->out[2][i];
      g.b = batch->out[3][i];
      g.c = batch->out[4][i];
      g.k_x = batch->out[5][i];
      g.k_y = batch->out[6][i];
      g.log2_opacity = batch->out[7][i];
      g.z = batch->out[8][i];
      g.index = uint32_t(first + i);
      if (s.channels == 3) std::memcpy(g.color, s.colors + 3 * (first + i), sizeof(g.color));
      uint32_t depth_bits;
      std::memcpy(&depth_bits, &g.z, sizeof(depth_bits));
      const uint64_t key = (uint64_t(depth_bits) << 32) | g.index;
      const int range[4] = {batch->range[0][i], batch->range[1][i], batch->range[2][i], batch->range[3][i]};
      if (tiles != kLarge) {
        list_small(key, tiles, range[2] * tiles_x + range[0], tiles_x, t);
      } else {
        list_large(g, key, batch->out[9][i], batch->out[10][i], range, tiles_x, t);
        t->pairs.grow(t->pair_count + size_t(n - i) * 4 + kSpare, t->pair_count);
      }
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
  int width = 0;  // bits of the range, in as few passes as counters of a sensible number allow
  while (width < 32 && (range >> width) != 0) width++;
  const int most = n < 1024 ? 9 : 11, passes = std::max(1, (width + most - 1) / most), digit = (width + passes - 1) / passes;
  const uint32_t radix = 1u << digit;
  uint64_t* other = scratch->reserve(size_t(n));
  uint64_t* from = keys;
  uint64_t* to = other;
  uint32_t counts[2048];
  for (int shift = 0; shift < width; shift += digit) {
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

// One row of a tile, read out of its blocks; plane 0 is the transmittance, 1 the depth, 2.. the colours.
void gather_row(const TileBuffer& tile, int plane, int row, float* out) {
  const float* from = tile.state + size_t(row / kSide) * (kTile / kSide) * tile.stride + size_t(plane) * kPixels + (row % kSide) * kSide;
  for (int i = 0; i < kTile / kSide; i++) std::memcpy(out + i * kSide, from + i * tile.stride, kSide * sizeof(float));
}

void write_u8(const FourdSplatArgs& s, const Kernels& k, const TileBuffer& tile, int x0, int y0) {
  alignas(64) uint8_t back[kTile * kTile * 3], out[kTile * kTile * 3];
  const int cols = std::min(kTile, s.width - x0), rows = std::min(kTile, s.height - y0);
  const size_t pitch = size_t(s.width) * 3, at = size_t(y0) * pitch + size_t(x0) * 3;
  if (!s.background_u8 || rows < kTile || cols < kTile) std::memset(back, 0, sizeof(back));
  if (s.background_u8)
    for (int r = 0; r < rows; r++) std::memcpy(back + r * kTile * 3, s.background_u8 + at + r * pitch, size_t(cols) * 3);
  k.finish(tile, back, out);
  for (int r = 0; r < rows; r++) std::memcpy(s.image_u8 + at + r * pitch, out + r * kTile * 3, size_t(cols) * 3);
}

void write_tile(const FourdSplatArgs& s, const Kernels& k, const TileBuffer& tile, int x0, int y0) {
  const int cols = std::min(kTile, s.width - x0), rows = std::min(kTile, s.height - y0);
  alignas(64) float t[kTile], value[kTile];
  for (int r = 0; r < rows; r++) {
    const size_t at = size_t(y0 + r) * s.width + x0;
    gather_row(tile, 0, r, t);
    for (int i = 0; i < kTile; i++) t[i] = std::fabs(t[i]);
    if (s.image) {
      for (int d = 0; d < s.channels; d++) {
        gather_row(tile, 2 + d, r, value);
        const float back = s.background ? s.background[d] : 0.0f;
        float* out = s.image + at * s.channels + d;
        for (int i = 0; i < cols; i++) out[size_t(i) * s.channels] = value[i] + t[i] * back;
      }
    }
    if (s.alpha)
      for (int i = 0; i < cols; i++) s.alpha[at + i] = 1.0f - t[i];
    if (s.depth_z) {
      gather_row(tile, 1, r, value);
      for (int i = 0; i < cols; i++) s.depth_z[at + i] = t[i] < 1.0f ? value[i] / (1.0f - t[i]) : 0.0f;
    }
  }
  if (s.image_u8) write_u8(s, k, tile, x0, y0);
}

void draw_tile(const FourdSplatArgs& s, const Kernels& k, const Projected* projected, uint64_t* order, int64_t count, int x0, int y0,
               ThreadScratch* t) {
  const size_t stride = size_t(kPixels) * (2 + s.channels);
  const TileBuffer tile{float(x0), float(y0), t->tile.reserve(kBlocks * stride), stride};
  const int cols = std::min(kTile, s.width - x0), rows = std::min(kTile, s.height - y0);
  if (count == 0 && s.image_u8 && s.background_u8 && !s.image && !s.alpha && !s.depth_z) {
    for (int r = 0; r < rows; r++) {
      const size_t at = (size_t(y0 + r) * s.width + x0) * 3;
      std::memcpy(s.image_u8 + at, s.background_u8 + at, size_t(cols) * 3);
    }
    return;
  }
  std::memset(tile.state, 0, kBlocks * stride * sizeof(float));
  for (int block = 0; block < kBlocks; block++) {
    for (int p = 0; p < kPixels; p++) {  // pixels beyond the picture have ended from the start
      const int col = int(kBlockX[block] + kPixelX[p]), row = int(kBlockY[block] + kPixelY[p]);
      tile.state[block * stride + p] = (row < rows && col < cols) ? 1.0f : -1.0f;
    }
  }
  if (count > 0) {
    sort_keys(order, count, &t->sort);
    k.blend(projected, order, count, tile, s.colors, s.channels, s.depth_z != nullptr);
  }
  write_tile(s, k, tile, x0, y0);
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

// Steps 1 and 2: fill w->projected and w->order, and return the number of pairs; the pairs of tile i are starts[i]..starts[i + 1].
int64_t list_pairs(const FourdSplatArgs& s, const CameraConstants& cam, const Kernels& k, int asked, Workspace* w) {
  const int tiles_x = (s.width + kTile - 1) / kTile, tiles_y = (s.height + kTile - 1) / kTile;
  const int64_t tiles = int64_t(tiles_x) * tiles_y;
  Projected* projected = w->projected.reserve(size_t(s.count) + 1);
  w->starts.reserve(size_t(tiles) + 1);
  w->reserve_threads(asked);
  for (int t = 0; t < asked; t++) {
    w->threads[t].pair_count = 0;
    // beyond the last tile: list_small touches the right and lower neighbours without asking whether they exist
    const size_t room = size_t(tiles) + size_t(tiles_x) + 2;
    std::memset(w->threads[t].counts.reserve(room), 0, room * sizeof(int64_t));
  }
  parallel_ranges(asked, s.count, kChunk, [&](int64_t begin, int64_t end, int worker) {
    project_chunk(s, cam, k, begin, end, tiles_x, projected, &w->threads[worker]);
  });
  const int64_t pairs = prefix_sum(w, asked, tiles);
  uint64_t* order = w->order.reserve(size_t(pairs) + 1);
  parallel_for(asked, asked, [&](int64_t list, int) {
    ThreadScratch& from = w->threads[list];
    int64_t* next = from.counts.data();
    const Pair* listed = from.pairs.data();
    for (size_t p = 0; p < from.pair_count; p++) order[next[listed[p].tile]++] = listed[p].key;
  });
  return pairs;
}

// The scene as camera number `c` sees it.
FourdSplatArgs for_camera(const FourdSplatArgs& all, int c) {
  FourdSplatArgs s = all;
  const size_t pixels = size_t(all.width) * all.height * c;
  s.cameras = 1;
  s.world_to_camera += 16 * c;
  s.intrinsics += 9 * c;
  s.colors += all.color_stride * c;
  if (s.image) s.image += pixels * all.channels;
  if (s.alpha) s.alpha += pixels;
  if (s.depth_z) s.depth_z += pixels;
  return s;
}

void draw(const FourdSplatArgs& s, Workspace* w) {
  const CameraConstants cam = camera_constants(s);
  const Kernels k = kernels();
  const int asked = max_threads(s.threads);
  list_pairs(s, cam, k, asked, w);
  const int tiles_x = (s.width + kTile - 1) / kTile, tiles_y = (s.height + kTile - 1) / kTile;
  const int64_t* starts = w->starts.data();
  parallel_for(asked, int64_t(tiles_x) * tiles_y, [&](int64_t tile, int worker) {
    draw_tile(s, k, w->projected.data(), w->order.data() + starts[tile], starts[tile + 1] - starts[tile],
              int(tile % tiles_x) * kTile, int(tile / tiles_x) * kTile, &w->threads[worker]);
  });
}

#include "splat_backward.inl"

bool valid(const FourdSplatArgs& s) {
  return s.count >= 0 && s.count < INT32_MAX && s.width >= 1 && s.height >= 1 && s.channels >= 1 && s.cameras >= 0 &&
         s.near_z > 0.0f && !(s.image_u8 && (s.channels != 3 || s.cameras != 1));
}

thread_local Workspace g_workspace;

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_splat(const FourdSplatArgs* args) {
  using namespace fourd;
  if (!valid(*args)) return kBadArgument;
  try {
    for (int c = 0; c < args->cameras; c++) draw(for_camera(*args, c), &g_workspace);
    return kOk;
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
}

FOURD_EXPORT int fourd_splat_backward(const FourdSplatBackwardArgs* args) {
  using namespace fourd;
  const FourdSplatArgs& s = args->scene;
  if (!valid(s) || s.image_u8 || !s.alpha || !s.depth_z) return kBadArgument;
  try {
    for (int c = 0; c < s.cameras; c++) draw_back(backward_for_camera(*args, c), &g_workspace);
    return kOk;
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
}
