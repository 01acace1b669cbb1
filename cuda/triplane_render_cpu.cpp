// Volume rendering of a tri-plane field on the CPU; contract in triplane_render.h.
//
// One ray at a time, all of its samples in the first-level cache: lanes are hidden units in the lookup and the activation,
// colours in the second layer. Rays go in tiles of 8 x 8 (where their number is a square), whose texels share the second-level cache.
// Backward: rays are marched again, in chunks; a chunk's gradients of the pre-activations are then added to the texels by rows
// (each texel in the order of the samples), and at the end go back through the first layer. So bits do not depend on the threads.
#include "triplane_render.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "parallel.h"

namespace fourd {
namespace {

constexpr int kMostOutputs = 1024;   // colours, rounded up
constexpr int kMostSamples = 4096;   // of a ray
constexpr int kMostHidden = 4096;
constexpr int kTileSide = 8;
constexpr int kTileRays = kTileSide * kTileSide;
constexpr float kColourCutoff = 0.02f;  // skipping: weights up to it share one colour
constexpr int kUnknownCell = -1;     // beyond the occupancy grid
constexpr float kGridMargin = 1.25f;  // its side over that of the box
constexpr int kBands = 4;            // scatter tasks per plane
constexpr int kChunkTasks = 8;       // tiles whose gradients are held at a time

int round_up(int n, int to) { return (n + to - 1) / to * to; }

#include "triplane_render_types.inl"

#define FOURD_KERNELS_FILE "triplane_render_kernels.inl"
#include "instruction_sets.inl"

struct Kernels {
  decltype(&plain::render_ray) render_ray;
  decltype(&plain::pack_row) pack_row;
  decltype(&plain::locate) locate;
  decltype(&plain::plane_lookup) plane_lookup;
  decltype(&plain::sum_densities) sum_densities;
  decltype(&plain::ray_backward) ray_backward;
  decltype(&plain::scatter) scatter;
  decltype(&plain::unpack_row) unpack_row;
};

Kernels kernels() {
#if FOURD_X86
  if (instruction_set() == kAvx512)
    return {avx512::render_ray, avx512::pack_row, avx512::locate, avx512::plane_lookup, avx512::sum_densities, avx512::ray_backward, avx512::scatter, avx512::unpack_row};
  if (instruction_set() == kAvx2)
    return {avx2::render_ray, avx2::pack_row, avx2::locate, avx2::plane_lookup, avx2::sum_densities, avx2::ray_backward, avx2::scatter, avx2::unpack_row};
#endif
  return {plain::render_ray, plain::pack_row, plain::locate, plain::plane_lookup, plain::sum_densities, plain::ray_backward, plain::scatter, plain::unpack_row};
}

// Hands out pieces of one block; with a null block it only counts.
struct Arena {
  char* base;
  size_t used = 0;
  template <typename T>
  T* take(size_t count) {
    T* const at = base ? reinterpret_cast<T*>(base + used) : nullptr;
    used += (count * sizeof(T) + 63) / 64 * 64;
    return at;
  }
};

struct Sizes {
  int samples, padded, hidden, outputs, channels;  // padded: samples and room for a vector beyond
  size_t texel_count;                              // floats of one item's packed texels
  explicit Sizes(const FourdTriplaneRenderArgs& a)
      : samples(a.coarse + a.fine),
        padded(round_up(a.coarse + a.fine, 16) + 32),
        hidden(round_up(a.hidden, 16)),
        outputs(round_up(a.outputs, 16)),
        channels(round_up(a.channels, 16)),
        texel_count(size_t(3) * (a.height + 2) * (a.width + 2) * hidden) {}
};

void take_ray(Arena* arena, const Sizes& z, Ray* r) {
  const size_t n = z.padded;
  for (float** p : {&r->distance, &r->x, &r->y, &r->z, &r->density, &r->sorted_distance, &r->sorted_density, &r->alpha,
                    &r->weight, &r->histogram, &r->part})
    *p = arena->take<float>(n);
  r->hidden = arena->take<float>(n * z.hidden);
  r->sum = arena->take<float>(z.outputs);
  for (int p = 0; p < 3; p++) {
    r->places.texel[p] = arena->take<int32_t>(n);
    r->places.u[p] = arena->take<float>(n);
    r->places.v[p] = arena->take<float>(n);
  }
  r->places.cell = arena->take<int32_t>(n);
  r->order = arena->take<int32_t>(n);
  r->which = arena->take<int32_t>(n);
  r->empty = arena->take<uint8_t>(n);
  r->known = arena->take<uint8_t>(n);
  r->occupied = arena->take<uint8_t>(n + 2);
}

void take_gradient(Arena* arena, const Sizes& z, Gradient* g) {
  const size_t n = z.padded;
  for (float** p : {&g->decay, &g->along, &g->density, &g->transmittance}) *p = arena->take<float>(n);
  for (float** p : {&g->colours, &g->before_sigmoid, &g->per_output}) *p = arena->take<float>(n * z.outputs);
  g->hidden = arena->take<float>(n * z.hidden);
}

size_t decoder_sums(const Sizes& z) { return size_t(z.hidden) * (z.outputs + 2) + z.outputs + 16; }

void take_task(Arena* arena, const Sizes& z, TaskGradient* t) {
  t->colour_weight = arena->take<float>(decoder_sums(z));
  t->density_weight = t->colour_weight + size_t(z.outputs) * z.hidden;
  t->hidden_bias = t->density_weight + z.hidden;
  t->colour_bias = t->hidden_bias + z.hidden;
  t->density_bias = t->colour_bias + z.outputs;
  const size_t n = size_t(kTileRays) * z.samples + 16;
  t->rows = arena->take<float>(n * z.hidden);
  for (int p = 0; p < 3; p++) {
    t->texel[p] = arena->take<int32_t>(n);
    t->row[p] = arena->take<int32_t>(n);
    t->u[p] = arena->take<float>(n);
    t->v[p] = arena->take<float>(n);
  }
}

// The decoder in the layouts of the kernels.
struct Decoder {
  std::vector<float> bias, density_weight, colour_weight, colour_weight_rows, colour_bias, first, first_rows;
  Decoder(const FourdTriplaneRenderArgs& a, const Sizes& z)
      : bias(z.hidden), density_weight(z.hidden), colour_weight(size_t(z.hidden) * z.outputs),
        colour_weight_rows(size_t(z.hidden) * z.outputs), colour_bias(z.outputs), first(size_t(a.channels) * z.hidden),
        first_rows(size_t(z.hidden) * z.channels) {
    for (int u = 0; u < a.hidden; u++) {
      bias[u] = a.hidden_bias[u];
      density_weight[u] = a.out_weight[u];
      for (int k = 0; k < a.outputs; k++) {
        const float w = a.out_weight[size_t(k + 1) * a.hidden + u];
        colour_weight[size_t(u) * z.outputs + k] = w;
        colour_weight_rows[size_t(k) * z.hidden + u] = w;
      }
      for (int c = 0; c < a.channels; c++) {
        const float w = a.plane_scale * a.hidden_weight[size_t(u) * a.channels + c];
        first[size_t(c) * z.hidden + u] = w;
        first_rows[size_t(u) * z.channels + c] = w;
      }
    }
    for (int k = 0; k < a.outputs; k++) colour_bias[k] = a.out_bias[k + 1];
  }
};

Job make_job(const FourdTriplaneRenderArgs& a, const Sizes& z, const Decoder& d) {
  Job job;
  job.args = &a;
  Field& f = job.field;
  f.packed = nullptr;
  f.occupancy = nullptr;
  f.bias = d.bias.data();
  f.density_weight = d.density_weight.data();
  f.colour_weight = d.colour_weight.data();
  f.colour_weight_rows = d.colour_weight_rows.data();
  f.colour_bias = d.colour_bias.data();
  f.density_bias = a.out_bias[0];
  f.hidden = z.hidden;
  f.outputs = z.outputs;
  f.channels_padded = z.channels;
  f.row_stride = (a.width + 2) * z.hidden;
  f.plane_stride = f.row_stride * (a.height + 2);
  for (int p = 0; p < 3; p++) f.column[p] = a.axes[2 * p], f.row[p] = a.axes[2 * p + 1];
  f.scale_u = float(a.width) / a.box_size;  // ((2 x / box + 1) W - 1) / 2
  f.shift_u = 0.5f * float(a.width - 1);
  f.limit_u = float(a.width);
  f.scale_v = float(a.height) / a.box_size;
  f.shift_v = 0.5f * float(a.height - 1);
  f.limit_v = float(a.height);
  f.cells = a.occupancy_size;
  f.cell_scale = float(a.occupancy_size) / (a.box_size * kGridMargin);
  job.warp = {nullptr, a.warp_depth, a.warp_height, a.warp_width, 2.0f / a.warp_size};
  return job;
}

// Point the job at one item of the batch, whose packed texels are given.
void choose_item(const FourdTriplaneRenderArgs& a, int item, const float* packed, Job* job) {
  const int64_t words = int64_t(a.occupancy_size) * a.occupancy_size * a.occupancy_size / 32;
  job->field.packed = packed;
  job->field.occupancy = a.occupancy ? a.occupancy + item * words : nullptr;
  job->warp.offsets = a.offsets ? a.offsets + 3 * int64_t(item) * a.warp_depth * a.warp_height * a.warp_width : nullptr;
}

void pack_item(const FourdTriplaneRenderArgs& a, const Sizes& z, const Decoder& d, const Kernels& k, int item, float* packed) {
  const size_t row = size_t(a.width + 2) * z.hidden;
  const int64_t channel = int64_t(a.height) * a.width;
  parallel_for(a.threads, int64_t(3) * (a.height + 2), [&](int64_t task, int) {
    const int plane = int(task / (a.height + 2)), y = int(task % (a.height + 2)) - 1;
    float* const out = packed + size_t(task) * row;
    if (y < 0 || y >= a.height) {
      std::memset(out, 0, row * sizeof(float));
      return;
    }
    std::memset(out, 0, z.hidden * sizeof(float));
    std::memset(out + row - z.hidden, 0, z.hidden * sizeof(float));
    const float* const texels = a.planes + ((int64_t(item) * 3 + plane) * a.channels) * channel + int64_t(y) * a.width;
    k.pack_row(texels, channel, a.channels, a.width, d.first.data(), z.hidden, out + z.hidden);
  });
}

// Where ray number `i` of tile `tile` is: rays of a square picture in square tiles, others as they come. -1: there is none.
struct Tiling {
  int64_t rays, side, across, tiles;
  explicit Tiling(int64_t count) : rays(count), side(int64_t(std::sqrt(double(count)) + 0.5)) {
    if (side * side != count || side < kTileSide) side = 0;
    across = side ? (side + kTileSide - 1) / kTileSide : 0;
    tiles = side ? across * across : (count + kTileRays - 1) / kTileRays;
  }
  int64_t ray(int64_t tile, int i) const {
    if (!side) return tile * kTileRays + i < rays ? tile * kTileRays + i : -1;
    const int64_t x = tile % across * kTileSide + i % kTileSide, y = tile / across * kTileSide + i / kTileSide;
    return x < side && y < side ? y * side + x : -1;
  }
};

// Take up a ray; false where one of its numbers is not finite.
bool begin_ray(const FourdTriplaneRenderArgs& a, int64_t index, Ray* r) {
  r->index = index;
  float sum = a.near_distance[index] * 0.0f + a.far_distance[index] * 0.0f;
  for (int d = 0; d < 3; d++) {
    r->origin[d] = a.origins[3 * index + d];
    r->direction[d] = a.directions[3 * index + d];
    sum += r->origin[d] * 0.0f + r->direction[d] * 0.0f;
  }
  return sum == 0.0f;
}

void write_nan(const FourdTriplaneRenderArgs& a, int64_t index) {
  const float nan = std::nanf("");
  std::fill_n(a.features + index * a.outputs, a.outputs, nan);
  a.distance_sum[index] = a.weight_sum[index] = nan;
}

bool sizes_fit(const FourdTriplaneRenderArgs& a) {
  const bool positive = a.batch >= 0 && a.rays >= 0 && a.channels > 0 && a.height > 0 && a.width > 0 && a.hidden > 0 &&
                        a.outputs > 0 && a.coarse >= (a.fine ? 4 : 2) && a.fine >= 0;
  if (!positive || a.hidden > kMostHidden || a.outputs > kMostOutputs - 16 || a.coarse > kMostSamples ||
      a.fine > kMostSamples || a.occupancy_size % 32 != 0 || a.occupancy_size > 512 || a.occupancy_size < 0)
    return false;
  if (a.offsets && (a.warp_depth < 1 || a.warp_height < 1 || a.warp_width < 1)) return false;
  return double(a.height + 2) * (a.width + 2) * 3 * round_up(a.hidden, 16) < 2147483647.0 && a.height < (1 << 20) &&
         a.width < (1 << 20);
}

// Room kept between calls, per calling thread.
struct Room {
  Scratch<float> packed, texel_gradient, tables;
  Scratch<char> workers;
  Scratch<uint32_t> occupancy;
};
Room& room() {
  static thread_local Room kept;
  return kept;
}

// Mark the cells of one item whose middle, or a neighbour's, is dense. The middles lie on a grid, so what each plane adds is looked
// up once per pair of coordinates instead of once per cell.
void mark_cells(const FourdTriplaneRenderArgs& a, const Kernels& k, const Job& job, std::vector<Ray>* workers,
                uint32_t* bits) {
  const int g = a.occupancy_size, hidden = job.field.hidden;
  const size_t table_size = size_t(g) * g * hidden;
  float* const tables = room().tables.reserve(3 * table_size);  // [3][g rows][g columns][U']
  std::vector<uint8_t> dense(size_t(g) * g * g);
  const float raw = a.empty_density > 15.0f ? a.empty_density : std::log(std::expm1(a.empty_density));
  const float limit = raw + 1.0f;  // softplus(limit - 1) = empty_density
  const float side = a.box_size * kGridMargin, step = side / float(g), start = 0.5f * (step - side);
  parallel_for(a.threads, int64_t(3) * g, [&](int64_t task, int worker) {
    Ray& r = (*workers)[worker];
    const int plane = int(task / g), row = int(task % g);
    float* const at[3] = {r.x, r.y, r.z};
    for (int i = 0; i < g; i++) {
      at[0][i] = at[1][i] = at[2][i] = 0.0f;
      at[job.field.row[plane]][i] = start + step * float(row);
      at[job.field.column[plane]][i] = start + step * float(i);
    }
    k.locate(job.field, {r.x, r.y, r.z}, g, &r.places);
    k.plane_lookup(job.field, r.places, plane, g, tables + table_size * plane + size_t(row) * g * hidden);
  });
  parallel_for(a.threads, int64_t(g) * g, [&](int64_t line, int worker) {
    Ray& r = (*workers)[worker];
    const int64_t first[3] = {0, line % g, line / g};  // x y z of the line's first cell
    const float* rows[3];
    int64_t steps[3];
    for (int p = 0; p < 3; p++) {
      const int row = job.field.row[p], column = job.field.column[p];
      rows[p] = tables + table_size * p + (first[row] * g + first[column]) * hidden;
      steps[p] = row == 0 ? int64_t(g) * hidden : column == 0 ? hidden : 0;
    }
    k.sum_densities(job.field, rows, steps, g, r.density);
    for (int x = 0; x < g; x++) dense[size_t(line) * g + x] = !(r.density[x] <= limit);
  });
  parallel_for(a.threads, int64_t(g) * g, [&](int64_t line, int) {
    const int y = int(line % g), z = int(line / g);
    uint32_t* const out = bits + line * g / 32;
    std::fill_n(out, g / 32, 0u);
    for (int dz = -1; dz <= 1; dz++)
      for (int dy = -1; dy <= 1; dy++) {
        if (z + dz < 0 || z + dz >= g || y + dy < 0 || y + dy >= g) continue;
        const uint8_t* const from = dense.data() + (size_t(z + dz) * g + y + dy) * g;
        for (int x = 0; x < g; x++) {
          const bool near = from[x] || (x > 0 && from[x - 1]) || (x + 1 < g && from[x + 1]);
          out[x >> 5] |= uint32_t(near) << (x & 31);
        }
      }
  });
}

// Buffers for rays and for lines of cells, one for each worker.
std::vector<Ray> ray_buffers(const FourdTriplaneRenderArgs& a) {
  FourdTriplaneRenderArgs longest = a;
  if (a.occupancy_size > a.coarse + a.fine) longest.coarse = a.occupancy_size, longest.fine = 0;
  const Sizes z(longest);
  std::vector<Ray> workers(max_threads(a.threads));
  Arena measure{nullptr};
  for (Ray& r : workers) take_ray(&measure, z, &r);
  Arena arena{room().workers.reserve(measure.used)};
  for (Ray& r : workers) take_ray(&arena, z, &r);
  return workers;
}

int64_t occupancy_words(const FourdTriplaneRenderArgs& a) {
  return int64_t(a.occupancy_size) * a.occupancy_size * a.occupancy_size / 32;
}

void prepare(const FourdTriplaneRenderArgs& a) {
  const Sizes z(a);
  const Decoder decoder(a, z);
  const Kernels k = kernels();
  std::vector<Ray> workers = ray_buffers(a);
  Job job = make_job(a, z, decoder);
  for (int item = 0; item < a.batch; item++) {
    float* const packed = a.packed + size_t(item) * z.texel_count;
    pack_item(a, z, decoder, k, item, packed);
    choose_item(a, item, packed, &job);
    job.field.occupancy = nullptr;
    if (a.occupancy) mark_cells(a, k, job, &workers, a.occupancy + item * occupancy_words(a));
  }
}

void render(const FourdTriplaneRenderArgs& a) {
  const Sizes z(a);
  const Decoder decoder(a, z);
  const Kernels k = kernels();
  std::vector<Ray> workers = ray_buffers(a);
  Job job = make_job(a, z, decoder);
  float* const own = a.packed ? nullptr : room().packed.reserve(z.texel_count);
  uint32_t* const bits = own && a.occupancy_size > 0 ? room().occupancy.reserve(occupancy_words(a)) : nullptr;
  const Tiling tiling(a.rays);
  for (int item = 0; item < a.batch; item++) {
    if (own) pack_item(a, z, decoder, k, item, own);
    choose_item(a, item, own ? own : a.packed + size_t(item) * z.texel_count, &job);
    if (bits) {
      job.field.occupancy = nullptr;
      mark_cells(a, k, job, &workers, bits);
      job.field.occupancy = bits;
    }
    parallel_for(a.threads, tiling.tiles, [&](int64_t tile, int worker) {
      for (int i = 0; i < kTileRays; i++) {
        const int64_t ray = tiling.ray(tile, i);
        if (ray < 0) continue;
        const int64_t index = int64_t(item) * a.rays + ray;
        if (begin_ray(a, index, &workers[worker])) k.render_ray(job, &workers[worker]);
        else write_nan(a, index);
      }
    });
  }
}

// Buffers of the backward pass: one set per worker, one TaskGradient per tile of a chunk.
struct BackwardRoom {
  std::vector<Ray> rays;
  std::vector<Gradient> gradients;
  std::vector<TaskGradient> tasks;
  BackwardRoom(const Sizes& z, int threads) : rays(threads), gradients(threads), tasks(kChunkTasks) {
    Arena measure{nullptr};
    take(&measure, z);
    Arena arena{room().workers.reserve(measure.used)};
    take(&arena, z);
  }
  void take(Arena* arena, const Sizes& z) {
    for (Ray& r : rays) take_ray(arena, z, &r);
    for (Gradient& g : gradients) take_gradient(arena, z, &g);
    for (TaskGradient& t : tasks) take_task(arena, z, &t);
  }
};

// Gradients of one item's texels [3][H+2][W+2][U'] (added to zeros) and of the decoder (added to `sums`).
void rays_backward(const FourdTriplaneRenderArgs& a, const Sizes& z, const Kernels& k, const Job& job, int item,
                   BackwardRoom* space, float* texels, double* sums) {
  const Tiling tiling(a.rays);
  for (int64_t first = 0; first < tiling.tiles; first += kChunkTasks) {
    const int count = int(std::min<int64_t>(kChunkTasks, tiling.tiles - first));
    parallel_for(a.threads, count, [&](int64_t number, int worker) {
      TaskGradient& task = space->tasks[number];
      std::fill_n(task.colour_weight, decoder_sums(z), 0.0f);
      task.count = 0;
      for (int i = 0; i < kTileRays; i++) {
        const int64_t ray = tiling.ray(first + number, i);
        if (ray >= 0 && begin_ray(a, int64_t(item) * a.rays + ray, &space->rays[worker]))
          k.ray_backward(job, &space->rays[worker], &space->gradients[worker], &task);
      }
    });
    parallel_for(a.threads, 3 * kBands, [&](int64_t part, int) {
      for (int t = 0; t < count; t++) k.scatter(job.field, space->tasks[t], int(part) / kBands, int(part) % kBands, texels);
    });
    for (int t = 0; t < count; t++)
      for (size_t i = 0; i < decoder_sums(z); i++) sums[i] += double(space->tasks[t].colour_weight[i]);
  }
}

// From gradients of the packed texels to those of the planes of one item and of the first layer (added to [C][U']).
void texels_backward(const FourdTriplaneRenderArgs& a, const Sizes& z, const Decoder& d, const Kernels& k, const Job& job,
                     int item, const float* texels, double* first_layer) {
  constexpr int kRowsPerTask = 16;
  const int groups = (a.height + kRowsPerTask - 1) / kRowsPerTask;
  const size_t size = size_t(a.channels) * z.hidden;
  std::vector<float> sums(size * groups * 3, 0.0f);
  const int64_t channel = int64_t(a.height) * a.width;
  parallel_for(a.threads, 3 * groups, [&](int64_t task, int) {
    std::vector<float> scratch(size_t(z.channels) * 16);
    const int plane = int(task) / groups, start = int(task) % groups * kRowsPerTask;
    const int64_t base = (int64_t(item) * 3 + plane) * a.channels * channel;
    for (int y = start; y < std::min(start + kRowsPerTask, a.height); y++) {
      const float* const from = texels + int64_t(plane) * job.field.plane_stride + int64_t(y + 1) * job.field.row_stride;
      const int64_t at = base + int64_t(y) * a.width;
      k.unpack_row(from + z.hidden, a.planes + at, channel, a.width, job.field, d.first_rows.data(), a.channels,
                   scratch.data(), a.grad_planes + at, sums.data() + size * task);
    }
  });
  for (int task = 0; task < 3 * groups; task++)
    for (size_t i = 0; i < size; i++) first_layer[i] += double(sums[size * task + i]);
}

void backward(const FourdTriplaneRenderArgs& a) {
  const Sizes z(a);
  const Decoder decoder(a, z);
  const Kernels k = kernels();
  Job job = make_job(a, z, decoder);
  BackwardRoom space(z, max_threads(a.threads));
  std::vector<double> sums(decoder_sums(z), 0.0), first_layer(size_t(a.channels) * z.hidden, 0.0);
  float* const packed = room().packed.reserve(z.texel_count);
  float* const texels = room().texel_gradient.reserve(z.texel_count);
  for (int item = 0; item < a.batch; item++) {
    pack_item(a, z, decoder, k, item, packed);
    choose_item(a, item, packed, &job);
    parallel_ranges(a.threads, int64_t(z.texel_count), int64_t(1) << 20,
                    [&](int64_t begin, int64_t end, int) { std::fill(texels + begin, texels + end, 0.0f); });
    rays_backward(a, z, k, job, item, &space, texels, sums.data());
    texels_backward(a, z, decoder, k, job, item, texels, first_layer.data());
  }
  const double* const density = sums.data() + size_t(z.outputs) * z.hidden;
  const double* const hidden_bias = density + z.hidden;
  const double* const colour_bias = hidden_bias + z.hidden;
  for (int u = 0; u < a.hidden; u++) {
    a.grad_out_weight[u] = float(density[u]);
    a.grad_hidden_bias[u] = float(hidden_bias[u]);
    for (int o = 0; o < a.outputs; o++) a.grad_out_weight[size_t(o + 1) * a.hidden + u] = float(sums[size_t(o) * z.hidden + u]);
    for (int c = 0; c < a.channels; c++)
      a.grad_hidden_weight[size_t(u) * a.channels + c] = float(double(a.plane_scale) * first_layer[size_t(c) * z.hidden + u]);
  }
  a.grad_out_bias[0] = float(colour_bias[z.outputs]);
  for (int o = 0; o < a.outputs; o++) a.grad_out_bias[o + 1] = float(colour_bias[o]);
}

int guarded(const FourdTriplaneRenderArgs* args, void (*run)(const FourdTriplaneRenderArgs&)) {
  if (!sizes_fit(*args)) return kBadArgument;
  try {
    run(*args);
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kOk;
}

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_triplane_render(const FourdTriplaneRenderArgs* args) { return fourd::guarded(args, fourd::render); }
FOURD_EXPORT int fourd_triplane_prepare(const FourdTriplaneRenderArgs* args) { return fourd::guarded(args, fourd::prepare); }
FOURD_EXPORT int fourd_triplane_render_backward(const FourdTriplaneRenderArgs* args) {
  return fourd::guarded(args, fourd::backward);
}
