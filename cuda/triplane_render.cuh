// What the forward and the backward pass of triplane_render share on CUDA: one warp per ray.
//
// Lanes are hidden units in the lookup (a texel is one coalesced read), samples in everything per sample, colours in the second
// layer. What a ray needs to remember (places, distances, densities, weights) lies in the warp's part of shared memory.
#pragma once

#include "device.cuh"
#include "triplane_render.h"

namespace fourd {
namespace {

constexpr int kWarp = 32;
constexpr int kMostWarps = 4;  // of a block
constexpr int kRows = 8;       // samples whose hidden activations are held at a time
constexpr int kStep = 8;       // skipping: samples between two looks at the transmittance
constexpr unsigned kAll = 0xffffffffu;
constexpr float kEmpty = -1e4f;
constexpr float kColourCutoff = 0.02f;  // skipping: weights up to it share one colour
constexpr float kGridMargin = 1.25f;    // side of the occupancy grid over that of the box

enum SampleState : int { kUnknown = 0, kKnown = 1, kLeftOut = 2 };

// Sizes that follow from the arguments.
struct Shape {
  int samples, padded_hidden, row_stride, plane_stride;
  int64_t texel_count;  // floats of one item's packed texels
  explicit Shape(const FourdTriplaneRenderArgs& a)
      : samples(a.coarse + a.fine), padded_hidden((a.hidden + 15) / 16 * 16), row_stride((a.width + 2) * padded_hidden),
        plane_stride(row_stride * (a.height + 2)), texel_count(int64_t(3) * plane_stride) {}
};

struct Place {
  int texel[3];  // first of four texels, in floats from the start of the item's packed texels
  float u[3], v[3];
};

// A warp's part of shared memory.
struct Room {
  float *distance, *density, *sorted_distance, *sorted_density, *alpha, *weight, *part;
  int *order, *which, *state;
  Place* places;
  float* hidden;  // [kRows][U']
  float* sum;     // [K]
};

__host__ __device__ inline size_t room_floats(const FourdTriplaneRenderArgs& a, const Shape& z) {
  return size_t(z.samples) * (10 + sizeof(Place) / sizeof(float)) + size_t(kRows) * z.padded_hidden + a.outputs;
}

__device__ inline Room room_at(float* base, const FourdTriplaneRenderArgs& a, const Shape& z) {
  Room r;
  const int n = z.samples;
  float** const floats[7] = {&r.distance, &r.density, &r.sorted_distance, &r.sorted_density, &r.alpha, &r.weight, &r.part};
  for (int i = 0; i < 7; i++, base += n) *floats[i] = base;
  int** const ints[3] = {&r.order, &r.which, &r.state};
  for (int i = 0; i < 3; i++, base += n) *ints[i] = reinterpret_cast<int*>(base);
  r.places = reinterpret_cast<Place*>(base);
  r.hidden = base + size_t(n) * (sizeof(Place) / sizeof(float));
  r.sum = r.hidden + size_t(kRows) * z.padded_hidden;
  return r;
}

// The ray that a warp works on.
struct Ray {
  int64_t index;
  int item;
  float origin[3], direction[3], near, far;
  const float* packed;
};

__device__ inline bool begin_ray(const FourdTriplaneRenderArgs& a, const Shape& z, int64_t index, Ray* r) {
  r->index = index;
  r->item = int(index / a.rays);
  r->near = a.near_distance[index];
  r->far = a.far_distance[index];
  r->packed = a.packed + r->item * z.texel_count;
  bool finite = isfinite(r->near) && isfinite(r->far);
  for (int d = 0; d < 3; d++) {
    r->origin[d] = a.origins[3 * index + d];
    r->direction[d] = a.directions[3 * index + d];
    finite = finite && isfinite(r->origin[d]) && isfinite(r->direction[d]);
  }
  return finite;
}

__device__ inline float softplus(float x) { return (x < 0.0f ? 0.0f : x) + log1pf(expf(-fabsf(x))); }  // NaN stays
__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ inline float sum_of_warp(float x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAll, x, step);
  return x;
}

__device__ inline uint32_t mix(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7FEB352Du;
  x = (x ^ (x >> 15)) * 0x846CA68Bu;
  return x ^ (x >> 16);
}
__device__ inline float counted_uniform(uint32_t ray_key, int sample) {
  return float(mix(ray_key + uint32_t(sample) * 0x9E3779B9u) >> 8) * (1.0f / 16777216.0f);
}

// Move a point by the trilinear interpolation of the offsets; beyond the outermost nodes they fade to zero within one cell.
__device__ inline void warp_point(const FourdTriplaneRenderArgs& a, int item, float* point) {
  const int size[3] = {a.warp_width, a.warp_height, a.warp_depth};
  int first[3];
  float part[3], moved[3] = {0.0f, 0.0f, 0.0f};
  for (int d = 0; d < 3; d++) {
    const float at = (point[d] * 2.0f / a.warp_size + 1.0f) * 0.5f * float(size[d] - 1);
    if (!(at > -1.0f && at < float(size[d]))) return;
    const float low = floorf(at);
    first[d] = int(low);
    part[d] = at - low;
  }
  const int64_t stride = int64_t(size[0]) * size[1] * size[2];
  const float* const offsets = a.offsets + 3 * stride * item;
  for (int corner = 0; corner < 8; corner++) {
    int64_t index = 0;
    float weight = 1.0f;
    bool inside = true;
    for (int d = 2; d >= 0; d--) {
      const int up = corner >> d & 1, i = first[d] + up;
      inside = inside && i >= 0 && i < size[d];
      weight *= up ? part[d] : 1.0f - part[d];
      index = index * size[d] + i;
    }
    if (inside)
      for (int d = 0; d < 3; d++) moved[d] += weight * offsets[d * stride + index];
  }
  for (int d = 0; d < 3; d++) point[d] += moved[d];
}

// Where a point lies in the three planes. Positions beyond the border meet its zeros (NaN too).
__device__ inline Place place_of(const FourdTriplaneRenderArgs& a, const Shape& z, const float* point) {
  Place p;
  for (int i = 0; i < 3; i++) {
    const float x = point[a.axes[2 * i]] * (float(a.width) / a.box_size) + 0.5f * float(a.width - 1);
    const float y = point[a.axes[2 * i + 1]] * (float(a.height) / a.box_size) + 0.5f * float(a.height - 1);
    const float u = fminf(fmaxf(x, -1.0f), float(a.width)), v = fminf(fmaxf(y, -1.0f), float(a.height));
    const float u0 = fminf(floorf(u), float(a.width - 1)), v0 = fminf(floorf(v), float(a.height - 1));
    p.u[i] = u - u0;
    p.v[i] = v - v0;
    p.texel[i] = (int(v0) + 1) * z.row_stride + (int(u0) + 1) * z.padded_hidden + i * z.plane_stride;
  }
  return p;
}

// May the sample at a point be left out, for all that the occupancy grid says of its cell?
__device__ inline bool is_empty(const FourdTriplaneRenderArgs& a, int item, const float* point) {
  const int g = a.occupancy_size;
  if (!a.occupancy || g == 0) return false;
  int64_t cell = 0;
  for (int d = 2; d >= 0; d--) {
    const float c = point[d] * (float(g) / (a.box_size * kGridMargin)) + 0.5f * float(g);
    if (!(c >= 0.0f && c < float(g))) return false;
    cell = cell * g + int(c);
  }
  cell += int64_t(item) * g * g * g;
  return !(a.occupancy[cell >> 5] >> (cell & 31) & 1);
}

// The four weights of a plane's texels.
__device__ inline void tap_weights(float u, float v, float* w) {
  w[0] = (1 - u) * (1 - v);
  w[1] = u * (1 - v);
  w[2] = (1 - u) * v;
  w[3] = u * v;
}

// Raw density at a place, the same in all lanes; hidden activations go to `hidden` [U'] where it is not null.
__device__ inline float evaluate(const FourdTriplaneRenderArgs& a, const Shape& z, const float* packed, const Place& p,
                                 float* hidden) {
  const int lane = threadIdx.x % kWarp, unit = z.padded_hidden;
  const int tap[4] = {0, unit, z.row_stride, z.row_stride + unit};
  float w[3][4], dot = 0.0f;
  for (int i = 0; i < 3; i++) tap_weights(p.u[i], p.v[i], w[i]);
  for (int j = lane; j < unit; j += kWarp) {
    const bool real = j < a.hidden;
    float x = real ? a.hidden_bias[j] : 0.0f;
#pragma unroll
    for (int i = 0; i < 3; i++)
#pragma unroll
      for (int c = 0; c < 4; c++) x += w[i][c] * packed[p.texel[i] + tap[c] + j];
    const float h = softplus(x);
    if (hidden) hidden[j] = real ? h : 0.0f;
    if (real) dot += h * a.out_weight[j];
  }
  return sum_of_warp(dot) + a.out_bias[0];
}

__device__ inline void coarse_distances(const FourdTriplaneRenderArgs& a, const Ray& ray, const Room& r) {
  const int n = a.coarse;
  const uint32_t key = mix(uint32_t(ray.index) ^ a.seed_key);
  for (int i = threadIdx.x % kWarp; i < n; i += kWarp) {
    float offset = a.placement == kFourdCentres ? 0.5f : 0.0f;
    if (a.draw_coarse) offset = a.draw_coarse[ray.index * n + i];
    else if (a.placement == kFourdJitter) offset = counted_uniform(key, i);
    const float part = (float(i) + offset) / float(n - 1);
    r.distance[i] = a.disparity ? 1.0f / ((1.0f - part) / ray.near + part / ray.far) : ray.near + (ray.far - ray.near) * part;
  }
  __syncwarp();
}

// Importance samples from the coarse weights, in rising order, into distance[S..].
__device__ inline void fine_distances(const FourdTriplaneRenderArgs& a, const Ray& ray, const Room& r) {
  const int n = a.coarse, bins = n - 3, lane = threadIdx.x % kWarp;
  float* const cumulative = r.alpha;  // free at this point, as `part` is
  if (lane == 0) {
    float total = 0.0f;
    for (int j = 0; j < bins; j++) {
      const float w0 = r.weight[j], w1 = r.weight[j + 1], w2 = r.weight[j + 2];
      r.part[j] = 0.5f * ((w0 > w1 ? w0 : w1) + (w2 > w1 ? w2 : w1)) + 0.01f + 1e-5f;
      total += r.part[j];
    }
    cumulative[0] = 0.0f;
    for (int j = 0; j < bins; j++) cumulative[j + 1] = cumulative[j] + r.part[j] / total;
  }
  __syncwarp();
  const uint32_t key = mix(uint32_t(ray.index) ^ a.seed_key);
  float* const fine = r.distance + n;
  for (int i = lane; i < a.fine; i += kWarp) {
    float q = float(i) / (a.fine > 1 ? float(a.fine - 1) : 1.0f);
    if (a.draw_fine) q = a.draw_fine[ray.index * a.fine + i];
    else if (a.placement == kFourdJitter) q = (float(i) + counted_uniform(key, n + i)) / float(a.fine);
    else if (a.placement == kFourdCentres) q = (float(i) + 0.5f) / float(a.fine);
    int low = 0, high = bins + 1;  // how many of cumulative[0..bins] are <= q
    while (low < high) {
      const int middle = (low + high) / 2;
      if (cumulative[middle] <= q) low = middle + 1;
      else high = middle;
    }
    const int below = low > 0 ? low - 1 : 0, above = low < bins ? low : bins;
    float width = cumulative[above] - cumulative[below];
    if (width < 1e-5f) width = 1.0f;
    const float start = 0.5f * (r.distance[below] + r.distance[below + 1]);
    const float end = 0.5f * (r.distance[above] + r.distance[above + 1]);
    fine[i] = start + (q - cumulative[below]) / width * (end - start);
  }
  __syncwarp();
  if (lane == 0)  // rounding may swap neighbours, given draws come in any order
    for (int i = 1; i < a.fine; i++) {
      const float found = fine[i];
      int k = i;
      for (; k > 0 && fine[k - 1] > found; k--) fine[k] = fine[k - 1];
      fine[k] = found;
    }
  __syncwarp();
}

// Merge coarse and fine samples by rank (coarse first among equals): `order` and the distances in order.
__device__ inline void merge(const FourdTriplaneRenderArgs& a, const Room& r) {
  const int n = a.coarse, all = n + a.fine, lane = threadIdx.x % kWarp;
  for (int i = lane; i < all; i += kWarp) r.order[i] = i;  // NaN distances could leave gaps
  __syncwarp();
  for (int i = lane; i < all; i += kWarp) {
    const bool is_fine = i >= n;
    const float t = r.distance[i];
    int low = is_fine ? 0 : n, high = is_fine ? n : all;
    const int start = low;
    while (low < high) {  // coarse: fine ones that are smaller; fine: coarse ones that are not larger
      const int middle = (low + high) / 2;
      if (is_fine ? r.distance[middle] <= t : r.distance[middle] < t) low = middle + 1;
      else high = middle;
    }
    r.order[(is_fine ? i - n : i) + low - start] = i;
  }
  __syncwarp();
  for (int i = lane; i < all; i += kWarp) r.sorted_distance[i] = r.distance[r.order[i]];
  __syncwarp();
}

// Places of the samples from..to-1, and (skipping) whether their cells are empty, in `which` for the time being.
__device__ inline void locate(const FourdTriplaneRenderArgs& a, const Shape& z, const Ray& ray, const Room& r, int from, int to) {
  for (int i = from + int(threadIdx.x % kWarp); i < to; i += kWarp) {
    float point[3];
    for (int d = 0; d < 3; d++) point[d] = ray.origin[d] + r.distance[i] * ray.direction[d];
    if (a.offsets) warp_point(a, ray.item, point);
    r.places[i] = place_of(a, z, point);
    r.state[i] = kUnknown;
    if (a.min_transmittance > 0.0f) r.which[i] = is_empty(a, ray.item, point);
  }
  __syncwarp();
}

// Opacities of the intervals from..to-1 between samples in order; `decay` (may be null) is d alpha / d raw density at the midpoint.
__device__ inline void opacities(const Room& r, const float* distance, int from, int to, float* decay) {
  for (int i = from + int(threadIdx.x % kWarp); i < to; i += kWarp) {
    const float sigma = softplus(0.5f * (r.sorted_density[i] + r.sorted_density[i + 1]) - 1.0f);
    const float length = distance[i + 1] - distance[i], left = expf(-sigma * length);
    r.alpha[i] = 1.0f - left;
    if (decay) decay[i] = length * left * (1.0f - expf(-sigma));
  }
  __syncwarp();
}

// March through n samples in `order` (null: as they lie), evaluating those that are not known. Leaves the weights of the intervals;
// returns how many were reached (all, unless skipping).
__device__ inline int march(const FourdTriplaneRenderArgs& a, const Shape& z, const Ray& ray, const Room& r, const int* order,
                            int n, const float* distance, float* decay) {
  const int lane = threadIdx.x % kWarp;
  const bool skipping = a.min_transmittance > 0.0f;
  float transmittance = 1.0f;
  int done = 0;
  for (int first = 0; first < n; first += kStep) {
    const int last = first + kStep < n ? first + kStep : n;
    for (int i = first; i < last; i++) {
      const int s = order ? order[i] : i, state = r.state[s];
      if (state == kKnown) continue;
      const float found = state == kLeftOut ? kEmpty : evaluate(a, z, ray.packed, r.places[s], nullptr);
      __syncwarp();
      if (lane == 0) {
        r.density[s] = found;
        if (state == kUnknown) r.state[s] = kKnown;
      }
    }
    __syncwarp();
    for (int i = first + lane; i < last; i += kWarp) r.sorted_density[i] = r.density[order ? order[i] : i];
    __syncwarp();
    opacities(r, distance, done, last - 1, decay);
    if (lane == 0)
      for (int i = done; i < last - 1; i++) {
        r.weight[i] = r.alpha[i] * transmittance;
        transmittance *= 1.0f - r.alpha[i] + 1e-10f;
      }
    transmittance = __shfl_sync(kAll, transmittance, 0);
    __syncwarp();
    done = last - 1;
    if (skipping && transmittance < a.min_transmittance) break;
  }
  return done;
}

// Skipping: leave out samples whose cells, and those of the samples beside them, are empty. Is any other there?
__device__ inline bool leave_out(const Room& r, const int* order, int n) {
  bool any = false;
  for (int i = threadIdx.x % kWarp; i < n; i += kWarp) {
    const int s = order ? order[i] : i;
    const bool before = i == 0 || r.which[order ? order[i - 1] : i - 1];
    const bool after = i + 1 == n || r.which[order ? order[i + 1] : i + 1];
    any = any || !r.which[s];
    if (r.state[s] != kKnown) r.state[s] = before && r.which[s] && after ? kLeftOut : kUnknown;
  }
  __syncwarp();
  return __any_sync(kAll, any);
}

// Weights of the ray's intervals between its samples in order (and `decay`, see `opacities`); returns how many intervals there are.
__device__ inline int weigh(const FourdTriplaneRenderArgs& a, const Shape& z, const Ray& ray, const Room& r, float* decay) {
  const int n = a.coarse, lane = threadIdx.x % kWarp;
  const bool skipping = a.min_transmittance > 0.0f;
  coarse_distances(a, ray, r);
  locate(a, z, ray, r, 0, n);
  if (skipping && !leave_out(r, nullptr, n)) {
    if (lane == 0) r.order[0] = 0, r.sorted_distance[0] = r.distance[0];
    __syncwarp();
    return 0;
  }
  if (a.fine) {
    const int reached = march(a, z, ray, r, nullptr, n, r.distance, nullptr);
    for (int i = reached + lane; i < n - 1; i += kWarp) r.weight[i] = 0.0f;
    __syncwarp();
    fine_distances(a, ray, r);
    locate(a, z, ray, r, n, z.samples);
  }
  merge(a, r);
  if (skipping) leave_out(r, r.order, z.samples);
  return march(a, z, ray, r, r.order, z.samples, r.sorted_distance, decay);
}

// Bytes of shared memory for `warps` rays and `common` floats; picks warps so that it fits without asking for more, if it can.
inline int choose_warps(size_t common, size_t per_warp, size_t* bytes) {
  int warps = kMostWarps;
  while (warps > 1 && (common + warps * per_warp) * sizeof(float) > 48 * 1024) warps--;
  *bytes = (common + warps * per_warp) * sizeof(float);
  return warps;
}

inline bool sizes_fit(const FourdTriplaneRenderArgs& a) {
  const Shape z(a);
  return a.batch >= 0 && a.rays >= 0 && a.channels > 0 && a.height > 0 && a.width > 0 && a.hidden > 0 && a.outputs > 0 &&
         a.coarse >= (a.fine ? 4 : 2) && a.fine >= 0 && a.occupancy_size % 32 == 0 && a.occupancy_size >= 0 &&
         a.occupancy_size <= 512 && a.packed && (!a.offsets || (a.warp_depth > 0 && a.warp_height > 0 && a.warp_width > 0)) &&
         double(a.height + 2) * (a.width + 2) * 3 * z.padded_hidden < 2147483647.0;
}

}  // namespace

// Defined in triplane_render.cu: packs the texels, and fills the occupancy where there is one. Returns fourd::Status.
int launch_triplane_prepare(const FourdTriplaneRenderArgs& a, cudaStream_t stream);

}  // namespace fourd
