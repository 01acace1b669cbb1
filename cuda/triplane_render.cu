// Volume rendering of a tri-plane field on CUDA; contract in triplane_render.h.
//
// The texels are packed first (the decoder's first layer applied to them), then one warp renders one ray: densities of the coarse
// samples, importance samples, densities, weights; then, eight at a time, the hidden activations of the samples that count, and their
// colours with one lane per colour. Activations are computed again for the colours: that costs a lookup and saves 24 KB per ray.
#include "triplane_render.cuh"
#include "triplane_render_backward.cuh"

namespace fourd {
namespace {

constexpr int kPackThreads = 256;

// One row of packed texels (border included) per blockIdx.x, kTexels of it per blockIdx.y.
__global__ void pack(FourdTriplaneRenderArgs a, Shape z) {
  extern __shared__ float shared[];
  float* const layer = shared;                                  // [C][U']
  float* const tile = shared + a.channels * z.padded_hidden;    // [C][kTexels + 1]
  for (int i = threadIdx.x; i < a.channels * z.padded_hidden; i += blockDim.x) {
    const int c = i / z.padded_hidden, u = i % z.padded_hidden;
    layer[i] = u < a.hidden ? a.plane_scale * a.hidden_weight[u * a.channels + c] : 0.0f;
  }
  const int rows = a.height + 2, y = int(blockIdx.x % rows) - 1, x0 = int(blockIdx.y) * kTexels - 1;
  const int64_t plane = blockIdx.x / rows;  // counted over the batch
  const bool inside_y = y >= 0 && y < a.height;
  for (int i = threadIdx.x; i < a.channels * kTexels; i += blockDim.x) {
    const int c = i / kTexels, x = x0 + i % kTexels;
    const bool inside = inside_y && x >= 0 && x < a.width;
    tile[c * (kTexels + 1) + i % kTexels] =
        inside ? a.planes[((plane * a.channels + c) * a.height + y) * a.width + x] : 0.0f;
  }
  __syncthreads();
  float* const out = a.packed + plane * z.plane_stride + int64_t(y + 1) * z.row_stride;
  for (int i = threadIdx.x; i < kTexels * z.padded_hidden; i += blockDim.x) {
    const int t = i / z.padded_hidden, u = i % z.padded_hidden;
    if (x0 + t > a.width) continue;
    float sum = 0.0f;
    for (int c = 0; c < a.channels; c++) sum += tile[c * (kTexels + 1) + t] * layer[c * z.padded_hidden + u];
    out[int64_t(x0 + 1 + t) * z.padded_hidden + u] = sum;
  }
}

// Is the middle of a cell dense? One warp per cell.
__global__ void mark_dense(FourdTriplaneRenderArgs a, Shape z, uint8_t* dense, float limit) {
  const int g = a.occupancy_size;
  const int64_t cell = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp, cells = int64_t(g) * g * g;
  if (cell >= cells * a.batch) return;
  const float side = a.box_size * kGridMargin, step = side / float(g), start = 0.5f * (step - side);
  const int64_t at = cell % cells;
  const float point[3] = {start + step * float(at % g), start + step * float(at / g % g), start + step * float(at / g / g)};
  const float found = evaluate(a, z, a.packed + cell / cells * z.texel_count, place_of(a, z, point), nullptr);
  if (threadIdx.x % kWarp == 0) dense[cell] = !(found <= limit);
}

// Mark the cells that are dense or have a dense neighbour: one thread per 32 cells along x.
__global__ void mark_cells(FourdTriplaneRenderArgs a, const uint8_t* dense) {
  const int g = a.occupancy_size;
  const int64_t word = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, words = int64_t(g) * g * g / 32;
  if (word >= words * a.batch) return;
  const int64_t first = word % words * 32;
  const int x0 = int(first % g), y = int(first / g % g), z = int(first / g / g);
  const uint8_t* const from = dense + word / words * words * 32;
  uint32_t bits = 0;
  for (int dz = -1; dz <= 1; dz++)
    for (int dy = -1; dy <= 1; dy++) {
      if (z + dz < 0 || z + dz >= g || y + dy < 0 || y + dy >= g) continue;
      const uint8_t* const line = from + (int64_t(z + dz) * g + y + dy) * g;
      for (int i = 0; i < 32; i++) {
        const int x = x0 + i;
        const bool near = line[x] || (x > 0 && line[x - 1]) || (x + 1 < g && line[x + 1]);
        bits |= uint32_t(near) << i;
      }
    }
  a.occupancy[word] = bits;
}

// The samples that count, with their parts: `which` and `part`. Lane 0 alone knows the sums; all know the number.
__device__ int choose(const FourdTriplaneRenderArgs& a, const Room& r, int n, float* distance_sum, float* weight_sum,
                      float* part_sum) {
  const float cutoff = a.min_transmittance > 0.0f ? kColourCutoff : 1e-9f;
  int count = 0;
  if (threadIdx.x % kWarp == 0) {
    float lent = 0.0f;
    for (int i = 0; i <= n; i++) {
      const float before = i > 0 ? r.weight[i - 1] : 0.0f, after = i < n ? r.weight[i] : 0.0f;
      if (i < n) {
        *weight_sum += after;
        *distance_sum += after * (0.5f * (r.sorted_distance[i] + r.sorted_distance[i + 1]));
      }
      lent += 0.5f * (before + after);
      if (fabsf(lent) <= cutoff) continue;  // NaN goes on
      r.which[count] = r.order[i];
      r.part[count++] = lent;
      *part_sum += lent;
      lent = 0.0f;
    }
  }
  count = __shfl_sync(kAll, count, 0);
  *part_sum = __shfl_sync(kAll, *part_sum, 0);
  __syncwarp();
  return count;
}

__device__ void render_ray(const FourdTriplaneRenderArgs& a, const Shape& z, const float* colour_weight, const Ray& ray,
                           const Room& r) {
  const int lane = threadIdx.x % kWarp, unit = z.padded_hidden;
  const int n = weigh(a, z, ray, r, nullptr);
  float distance_sum = 0.0f, weight_sum = 0.0f, part_sum = 0.0f;
  const int count = choose(a, r, n, &distance_sum, &weight_sum, &part_sum);
  for (int k = lane; k < a.outputs; k += kWarp) r.sum[k] = 0.0f;
  for (int first = 0; first < count; first += kRows) {
    const int rows = count - first < kRows ? count - first : kRows;
    for (int s = 0; s < rows; s++) evaluate(a, z, ray.packed, r.places[r.which[first + s]], r.hidden + s * unit);
    __syncwarp();
    for (int k = lane; k < a.outputs; k += kWarp) {
      float c[kRows];
#pragma unroll
      for (int s = 0; s < kRows; s++) c[s] = a.out_bias[k + 1];
      for (int u = 0; u < a.hidden; u++) {
        const float w = colour_weight[u * a.outputs + k];
#pragma unroll
        for (int s = 0; s < kRows; s++) c[s] += w * r.hidden[s * unit + u];  // rows beyond the last are not used
      }
#pragma unroll
      for (int s = 0; s < kRows; s++)
        if (s < rows) r.sum[k] += r.part[first + s] * sigmoid(c[s]);
    }
    __syncwarp();
  }
  for (int k = lane; k < a.outputs; k += kWarp)
    a.features[ray.index * a.outputs + k] = 1.002f * r.sum[k] - 0.001f * part_sum;
  if (lane == 0) {
    a.distance_sum[ray.index] = distance_sum;
    a.weight_sum[ray.index] = weight_sum;
  }
  __syncwarp();
}

__global__ void render(FourdTriplaneRenderArgs a, Shape z) {
  extern __shared__ float shared[];
  float* const colour_weight = shared;  // [U][K]
  for (int i = threadIdx.x; i < a.hidden * a.outputs; i += blockDim.x)
    colour_weight[i] = a.out_weight[(1 + i % a.outputs) * a.hidden + i / a.outputs];
  __syncthreads();
  const int warps = blockDim.x / kWarp, warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const Room r = room_at(shared + a.hidden * a.outputs + warp * room_floats(a, z), a, z);
  for (int i = lane; i < kRows * z.padded_hidden; i += kWarp) r.hidden[i] = 0.0f;
  __syncwarp();
  for (int64_t index = int64_t(blockIdx.x) * warps + warp; index < a.rays * a.batch; index += int64_t(gridDim.x) * warps) {
    Ray ray;
    if (begin_ray(a, z, index, &ray)) {
      render_ray(a, z, colour_weight, ray, r);
      continue;
    }
    for (int k = lane; k < a.outputs; k += kWarp) a.features[index * a.outputs + k] = nanf("");
    if (lane == 0) a.distance_sum[index] = a.weight_sum[index] = nanf("");
  }
}

}  // namespace

int launch_triplane_prepare(const FourdTriplaneRenderArgs& a, cudaStream_t stream) {
  const Shape z(a);
  const size_t bytes = sizeof(float) * a.channels * (z.padded_hidden + kTexels + 1);
  if (bytes > 48 * 1024 && cudaFuncSetAttribute(pack, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)) != cudaSuccess)
    return kCudaFailed;
  const dim3 grid(unsigned(a.batch * 3 * (a.height + 2)), unsigned(blocks_for(a.width + 2, kTexels)));
  if (a.batch > 0) pack<<<grid, kPackThreads, bytes, stream>>>(a, z);
  if (a.batch > 0 && a.occupancy && a.occupancy_size > 0) {
    if (!a.scratch) return kBadArgument;
    uint8_t* const dense = reinterpret_cast<uint8_t*>(a.scratch);
    const int64_t cells = int64_t(a.occupancy_size) * a.occupancy_size * a.occupancy_size * a.batch;
    const float raw = a.empty_density > 15.0f ? a.empty_density : logf(expm1f(a.empty_density));
    mark_dense<<<blocks_for(cells * kWarp, 256), 256, 0, stream>>>(a, z, dense, raw + 1.0f);
    mark_cells<<<blocks_for(cells / 32, 256), 256, 0, stream>>>(a, dense);
  }
  return launched();
}

}  // namespace fourd

FOURD_EXPORT int fourd_triplane_prepare_cuda(const FourdTriplaneRenderArgs* args, cudaStream_t stream) {
  return fourd::sizes_fit(*args) ? fourd::launch_triplane_prepare(*args, stream) : int(fourd::kBadArgument);
}

FOURD_EXPORT int fourd_triplane_render_cuda(const FourdTriplaneRenderArgs* args, cudaStream_t stream) {
  using namespace fourd;
  const FourdTriplaneRenderArgs& a = *args;
  if (!sizes_fit(a)) return kBadArgument;
  if (!a.prepared) {
    const int code = launch_triplane_prepare(a, stream);
    if (code != kOk) return code;
  }
  const Shape z(a);
  size_t bytes = 0;
  const int warps = choose_warps(size_t(a.hidden) * a.outputs, room_floats(a, z), &bytes);
  if (bytes > 48 * 1024 && cudaFuncSetAttribute(render, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)) != cudaSuccess)
    return kCudaFailed;
  const int64_t rays = a.rays * a.batch;
  if (rays > 0) render<<<blocks_for(rays, warps), warps * kWarp, bytes, stream>>>(a, z);
  return launched();
}
