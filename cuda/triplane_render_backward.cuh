// Backward pass of triplane_render on CUDA (part of triplane_render.cu).
//
// One warp marches a ray again, turns the gradients of its three sums into those of densities and colours, and adds the gradients of
// the pre-activations to the packed texels (args.scratch) with atomics. A second kernel takes these back through the decoder's first
// layer. Atomics add in any order: the last bits of the gradients change from run to run.
#pragma once

#include "triplane_render.cuh"

namespace fourd {
namespace {

constexpr int kBlocks = 1024;  // at most; the decoder's gradients are added up per block first
constexpr int kTexels = 32;
constexpr int kUnpackThreads = 256;

// Beside `Room`: what the backward pass keeps of a ray.
struct GradientRoom {
  float *decay, *along, *density;
  float* before;  // [kRows][1 + K]: gradients of the decoder's outputs
};

__host__ __device__ inline size_t gradient_floats(const FourdTriplaneRenderArgs& a, const Shape& z) {
  return size_t(z.samples) * 3 + size_t(kRows) * (a.outputs + 1);
}

// Sums of a block: out_weight [1+K][U], hidden_bias [U], out_bias [1+K].
__host__ __device__ inline size_t sum_floats(const FourdTriplaneRenderArgs& a) {
  return size_t(a.outputs + 2) * a.hidden + a.outputs + 1;
}

// Hidden activations of the samples first.. in order, at most kRows; returns how many.
__device__ int hidden_rows(const FourdTriplaneRenderArgs& a, const Shape& z, const Ray& ray, const Room& r, int first) {
  const int rows = z.samples - first < kRows ? z.samples - first : kRows;
  for (int s = 0; s < rows; s++)
    evaluate(a, z, ray.packed, r.places[r.order[first + s]], r.hidden + s * z.padded_hidden);
  __syncwarp();
  return rows;
}

// Colour k of those rows before the sigmoid; colour_weight is [U][K + 1].
__device__ void colour_rows(const FourdTriplaneRenderArgs& a, const Shape& z, const Room& r, const float* colour_weight, int k,
                            float* c) {
  for (int s = 0; s < kRows; s++) c[s] = a.out_bias[k + 1];
  for (int u = 0; u < a.hidden; u++) {
    const float w = colour_weight[u * (a.outputs + 1) + k];
#pragma unroll
    for (int s = 0; s < kRows; s++) c[s] += w * r.hidden[s * z.padded_hidden + u];
  }
}

// Gradients of the raw densities in order, and the parts of the samples.
__device__ void march_backward(const FourdTriplaneRenderArgs& a, const Shape& z, const float* colour_weight, const Ray& ray,
                               const Room& r, const GradientRoom& g) {
  const int lane = threadIdx.x % kWarp, n = z.samples - 1;
  const float* const of_features = a.grad_features + ray.index * a.outputs;
  for (int first = 0; first <= n; first += kRows) {
    const int rows = hidden_rows(a, z, ray, r, first);
    float along[kRows] = {};
    for (int k = lane; k < a.outputs; k += kWarp) {
      float c[kRows];
      colour_rows(a, z, r, colour_weight, k, c);
      for (int s = 0; s < kRows; s++) along[s] += of_features[k] * (1.002f * sigmoid(c[s]) - 0.001f);
    }
    for (int s = 0; s < rows; s++) {
      const float total = sum_of_warp(along[s]);
      if (lane == 0) g.along[first + s] = total;
    }
    __syncwarp();
  }
  for (int i = lane; i <= n; i += kWarp)
    r.part[i] = 0.5f * ((i > 0 ? r.weight[i - 1] : 0.0f) + (i < n ? r.weight[i] : 0.0f));
  if (lane == 0) {
    const float of_distance = a.grad_distance_sum[ray.index], of_weight = a.grad_weight_sum[ray.index];
    float* const in_front = r.sorted_density;  // free at this point
    float transmittance = 1.0f, behind = 0.0f;
    for (int i = 0; i < n; i++) {
      in_front[i] = transmittance;
      transmittance *= 1.0f - r.alpha[i] + 1e-10f;
      g.density[i] = 0.0f;
    }
    g.density[n] = 0.0f;
    for (int i = n - 1; i >= 0; i--) {
      const float middle = 0.5f * (r.sorted_distance[i] + r.sorted_distance[i + 1]);
      const float of_this = 0.5f * (g.along[i] + g.along[i + 1]) + of_distance * middle + of_weight;
      const float of_raw = 0.5f * in_front[i] * (of_this - behind) * g.decay[i];
      g.density[i] += of_raw;
      g.density[i + 1] += of_raw;
      behind = of_this * r.alpha[i] + (1.0f - r.alpha[i] + 1e-10f) * behind;
    }
  }
  __syncwarp();
}

// Gradients of the decoder's outputs for the rows from `first` on; rows beyond the last get zeros.
__device__ void outputs_backward(const FourdTriplaneRenderArgs& a, const Shape& z, const float* colour_weight, const Ray& ray,
                                 const Room& r, const GradientRoom& g, int first, int rows) {
  const int lane = threadIdx.x % kWarp, wide = a.outputs + 1;
  for (int k = lane; k < a.outputs; k += kWarp) {
    float c[kRows];
    colour_rows(a, z, r, colour_weight, k, c);
    const float of_feature = a.grad_features[ray.index * a.outputs + k];
    for (int s = 0; s < kRows; s++) {
      const float colour = sigmoid(c[s]);
      g.before[s * wide + k + 1] = s < rows ? 1.002f * r.part[first + s] * of_feature * colour * (1.0f - colour) : 0.0f;
    }
  }
  if (lane < kRows) g.before[lane * wide] = lane < rows ? g.density[first + lane] : 0.0f;
  __syncwarp();
}

__device__ void ray_backward(const FourdTriplaneRenderArgs& a, const Shape& z, const float* colour_weight, const Ray& ray,
                             const Room& r, const GradientRoom& g, float* sums) {
  const int lane = threadIdx.x % kWarp, wide = a.outputs + 1, unit = z.padded_hidden;
  const int tap[4] = {0, unit, z.row_stride, z.row_stride + unit};
  float* const texels = a.scratch + ray.item * z.texel_count;
  float* const bias_sums = sums + size_t(wide) * a.hidden;
  weigh(a, z, ray, r, g.decay);
  march_backward(a, z, colour_weight, ray, r, g);
  for (int first = 0; first < z.samples; first += kRows) {
    const int rows = hidden_rows(a, z, ray, r, first);
    outputs_backward(a, z, colour_weight, ray, r, g, first, rows);
    for (int o = lane; o < wide; o += kWarp) {
      float sum = 0.0f;
      for (int s = 0; s < rows; s++) sum += g.before[s * wide + o];
      atomicAdd(bias_sums + a.hidden + o, sum);
    }
    for (int u = lane; u < a.hidden; u += kWarp) {
      float of_hidden[kRows], of_bias = 0.0f;
      for (int s = 0; s < kRows; s++) of_hidden[s] = g.before[s * wide] * a.out_weight[u];
      for (int o = 0; o < wide; o++) {
        const float w = o > 0 ? colour_weight[u * wide + o - 1] : 0.0f;
        float sum = 0.0f;
#pragma unroll
        for (int s = 0; s < kRows; s++) {
          const float before = g.before[s * wide + o];
          of_hidden[s] += before * w;
          sum += before * r.hidden[s * unit + u];
        }
        atomicAdd(sums + size_t(o) * a.hidden + u, sum);
      }
      for (int s = 0; s < rows; s++) {  // d softplus / dx = sigmoid(x) = 1 - exp(-softplus(x))
        const float value = of_hidden[s] * (1.0f - expf(-r.hidden[s * unit + u]));
        of_bias += value;
        const Place& p = r.places[r.order[first + s]];
        for (int i = 0; i < 3; i++) {
          float w[4];
          tap_weights(p.u[i], p.v[i], w);
          for (int c = 0; c < 4; c++) atomicAdd(texels + p.texel[i] + tap[c] + u, w[c] * value);
        }
      }
      atomicAdd(bias_sums + u, of_bias);
    }
    __syncwarp();
  }
}

__global__ void rays_backward(FourdTriplaneRenderArgs a, Shape z) {
  extern __shared__ float shared[];
  const int wide = a.outputs + 1, warps = blockDim.x / kWarp, warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  float* const colour_weight = shared;  // [U][K + 1]: the odd stride keeps lanes of either kind on different banks
  float* const sums = shared + a.hidden * wide;
  for (int i = threadIdx.x; i < a.hidden * a.outputs; i += blockDim.x) {
    const int u = i / a.outputs, k = i % a.outputs;
    colour_weight[u * wide + k] = a.out_weight[(1 + k) * a.hidden + u];
  }
  for (int i = threadIdx.x; i < int(sum_floats(a)); i += blockDim.x) sums[i] = 0.0f;
  __syncthreads();
  float* const mine = sums + sum_floats(a) + warp * (room_floats(a, z) + gradient_floats(a, z));
  const Room r = room_at(mine, a, z);
  float* const rest = mine + room_floats(a, z);
  const GradientRoom g{rest, rest + z.samples, rest + 2 * z.samples, rest + 3 * z.samples};
  for (int i = lane; i < kRows * z.padded_hidden; i += kWarp) r.hidden[i] = 0.0f;
  __syncwarp();
  for (int64_t index = int64_t(blockIdx.x) * warps + warp; index < a.rays * a.batch; index += int64_t(gridDim.x) * warps) {
    Ray ray;
    if (begin_ray(a, z, index, &ray)) ray_backward(a, z, colour_weight, ray, r, g, sums);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < int(sum_floats(a)); i += blockDim.x) {
    const int weights = wide * a.hidden;
    float* const to = i < weights ? a.grad_out_weight + i
                      : i < weights + a.hidden ? a.grad_hidden_bias + (i - weights)
                                               : a.grad_out_bias + (i - weights - a.hidden);
    atomicAdd(to, sums[i]);
  }
}

// From gradients of packed texels to those of the planes and of the first layer; blocks take rows of kTexels texels in turn.
__global__ void unpack(FourdTriplaneRenderArgs a, Shape z) {
  extern __shared__ float shared[];
  const int unit = z.padded_hidden, pairs = a.hidden * a.channels;
  float* const layer = shared;                                // [U][C], scaled
  float* const sums = layer + pairs;                          // [U][C]
  float* const gradients = sums + pairs;                      // [kTexels][U' + 1]
  float* const texels = gradients + kTexels * (unit + 1);     // [C][kTexels + 1]
  for (int i = threadIdx.x; i < pairs; i += blockDim.x) layer[i] = a.plane_scale * a.hidden_weight[i], sums[i] = 0.0f;
  const int across = (a.width + kTexels - 1) / kTexels;
  const int64_t count = int64_t(a.batch) * 3 * a.height * across;
  for (int64_t n = blockIdx.x; n < count; n += gridDim.x) {
    const int x0 = int(n % across) * kTexels, y = int(n / across % a.height);
    const int64_t plane = n / across / a.height;
    const int wide = a.width - x0 < kTexels ? a.width - x0 : kTexels;
    const float* const from = a.scratch + plane * z.plane_stride + int64_t(y + 1) * z.row_stride + int64_t(x0 + 1) * unit;
    __syncthreads();
    for (int i = threadIdx.x; i < kTexels * unit; i += blockDim.x)
      gradients[i / unit * (unit + 1) + i % unit] = i / unit < wide ? from[i] : 0.0f;
    for (int i = threadIdx.x; i < a.channels * kTexels; i += blockDim.x) {
      const int c = i / kTexels, t = i % kTexels;
      texels[c * (kTexels + 1) + t] = t < wide ? a.planes[((plane * a.channels + c) * a.height + y) * a.width + x0 + t] : 0.0f;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < a.channels * kTexels; i += blockDim.x) {
      const int c = i / kTexels, t = i % kTexels;
      if (t >= wide) continue;
      float sum = 0.0f;
      for (int u = 0; u < a.hidden; u++) sum += gradients[t * (unit + 1) + u] * layer[u * a.channels + c];
      a.grad_planes[((plane * a.channels + c) * a.height + y) * a.width + x0 + t] = sum;
    }
    for (int i = threadIdx.x; i < pairs; i += blockDim.x) {  // always the same thread for a pair
      const int u = i / a.channels, c = i % a.channels;
      float sum = 0.0f;
      for (int t = 0; t < kTexels; t++) sum += gradients[t * (unit + 1) + u] * texels[c * (kTexels + 1) + t];
      sums[i] += sum;
    }
  }
  for (int i = threadIdx.x; i < pairs; i += blockDim.x) atomicAdd(a.grad_hidden_weight + i, a.plane_scale * sums[i]);
}

int clear(float* values, size_t count, cudaStream_t stream) {
  return cudaMemsetAsync(values, 0, count * sizeof(float), stream) == cudaSuccess ? int(kOk) : kCudaFailed;
}

template <typename Kernel>
int allow(Kernel kernel, size_t bytes) {
  if (bytes <= 48 * 1024) return kOk;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)) == cudaSuccess ? int(kOk)
                                                                                                              : kCudaFailed;
}

}  // namespace
}  // namespace fourd

FOURD_EXPORT int fourd_triplane_render_backward_cuda(const FourdTriplaneRenderArgs* args, cudaStream_t stream) {
  using namespace fourd;
  const FourdTriplaneRenderArgs& a = *args;
  if (!sizes_fit(a) || !a.scratch) return kBadArgument;
  const Shape z(a);
  int code = launch_triplane_prepare(a, stream);
  if (code == kOk) code = clear(a.scratch, size_t(a.batch) * z.texel_count, stream);
  if (code == kOk) code = clear(a.grad_hidden_weight, size_t(a.hidden) * a.channels, stream);
  if (code == kOk) code = clear(a.grad_hidden_bias, a.hidden, stream);
  if (code == kOk) code = clear(a.grad_out_weight, size_t(a.outputs + 1) * a.hidden, stream);
  if (code == kOk) code = clear(a.grad_out_bias, a.outputs + 1, stream);
  size_t bytes = 0;
  const size_t common = size_t(a.hidden) * (a.outputs + 1) + sum_floats(a);
  const int warps = choose_warps(common, room_floats(a, z) + gradient_floats(a, z), &bytes);
  if (code == kOk) code = allow(rays_backward, bytes);
  const size_t unpack_bytes =
      sizeof(float) * (2 * size_t(a.hidden) * a.channels + kTexels * (z.padded_hidden + 1) + a.channels * (kTexels + 1));
  if (code == kOk) code = allow(unpack, unpack_bytes);
  if (code != kOk) return code;
  const int64_t rays = a.rays * a.batch, blocks = (rays + warps - 1) / warps;
  if (rays > 0) rays_backward<<<int(blocks < kBlocks ? blocks : kBlocks), warps * kWarp, bytes, stream>>>(a, z);
  const int64_t rows = int64_t(a.batch) * 3 * a.height * blocks_for(a.width, kTexels);
  if (rows > 0) unpack<<<int(rows < kBlocks ? rows : kBlocks), kUnpackThreads, unpack_bytes, stream>>>(a, z);
  return launched();
}
