// What the parts of triplane_render_cpu.cpp share, whatever the instruction set (included once, inside its namespace).

struct Places {
  int32_t* texel[3];  // first of four texels, in floats from the start of `packed`
  float* u[3];        // fraction along columns
  float* v[3];        // fraction along rows
  int32_t* cell;
  Places from(int i) const {
    Places p = *this;
    for (int k = 0; k < 3; k++) p.texel[k] += i, p.u[k] += i, p.v[k] += i;
    p.cell += i;
    return p;
  }
};

struct SampleSet {
  const float *x, *y, *z;
};

// What the samples are looked up in.
struct Field {
  const float* packed;              // of the batch's current item
  const uint32_t* occupancy;        // likewise, or null
  const float* bias;                // [U']
  const float* density_weight;      // [U']
  const float* colour_weight;       // [U'][K']
  const float* colour_weight_rows;  // [K'][U']
  const float* colour_bias;         // [K']
  float density_bias;
  int hidden, outputs, channels_padded;  // U' K' C'
  int row_stride, plane_stride;
  int column[3], row[3];
  float scale_u, shift_u, limit_u, scale_v, shift_v, limit_v;
  int cells;
  float cell_scale;
};

struct Warp {
  const float* offsets;  // of the batch's current item, or null
  int depth, height, width;
  float scale;  // 2 / size
};

struct Job {
  const FourdTriplaneRenderArgs* args;
  Field field;
  Warp warp;
};

// The buffers of one ray; each worker has one.
struct Ray {
  int64_t index;
  float origin[3], direction[3];
  float *distance, *x, *y, *z, *density, *hidden;  // per sample: coarse ones first
  Places places;
  float *sorted_distance, *sorted_density, *alpha, *weight, *histogram, *part, *sum;
  int32_t *order, *which;
  uint8_t *empty, *known, *occupied;
  float transmittance_end;
};

// More of them for the backward pass.
struct Gradient {
  float *decay, *colours, *along, *density, *transmittance, *before_sigmoid, *per_output, *hidden;
};

// What a task of the backward pass leaves: sums for the decoder, and a row per sample.
struct TaskGradient {
  float *colour_weight, *density_weight, *colour_bias, *density_bias, *hidden_bias;  // one block of `sums` floats
  float* rows;
  int32_t *texel[3], *row[3];
  float *u[3], *v[3];
  int count;
};

uint32_t mix(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7FEB352Du;
  x = (x ^ (x >> 15)) * 0x846CA68Bu;
  return x ^ (x >> 16);
}
inline float counted_uniform(uint32_t ray_key, int sample) {
  return float(mix(ray_key + uint32_t(sample) * 0x9E3779B9u) >> 8) * 0x1p-24f;
}
inline float absolute_value(float x) { return x < 0.0f ? -x : x; }

// Move a point by the trilinear interpolation of the offsets; beyond the outermost nodes they fade to zero within one cell.
void warp_point(const Warp& w, float* x, float* y, float* z) {
  const float at[3] = {(*x * w.scale + 1.0f) * 0.5f * float(w.width - 1), (*y * w.scale + 1.0f) * 0.5f * float(w.height - 1),
                       (*z * w.scale + 1.0f) * 0.5f * float(w.depth - 1)};
  const int size[3] = {w.width, w.height, w.depth};
  int first[3];
  float part[3];
  for (int d = 0; d < 3; d++) {
    if (!(at[d] > -1.0f && at[d] < float(size[d]))) return;
    const float low = std::floor(at[d]);
    first[d] = int(low);
    part[d] = at[d] - low;
  }
  const int64_t stride = int64_t(w.depth) * w.height * w.width;
  float moved[3] = {0.0f, 0.0f, 0.0f};
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
    if (!inside) continue;
    for (int d = 0; d < 3; d++) moved[d] += weight * w.offsets[d * stride + index];
  }
  *x += moved[0];
  *y += moved[1];
  *z += moved[2];
}
