// The loops of triplane_render_cpu.cpp for one instruction set (see instruction_sets.inl).

constexpr float kLog2E = 1.4426950408889634f;

// As `softplus`, within 2e-4: for pictures that may leave things out.
FOURD_INLINE VF rough_softplus(VF x) {
  const VF t = vmax(absolute(x) * -kLog2E, broadcast(-126.0f));
  const VF shifted = t + kRound, f = t - (shifted - kRound);
  VF e = f * 0.055171773f + 0.24261117f;  // 2^f on [-1/2, 1/2] within 1e-4
  e = e * f + 0.69326099f;
  e = e * f + 0.99992807f;
  e = (VF)((VU)e + ((VU)shifted << 23));
  VF p = e * 0.04134729132056236f - 0.15742719173431396f;
  p = p * e + 0.30630090832710266f;
  p = p * e - 0.4969778060913086f;
  p = p * e + 0.9999432563781738f;
  return select(less(x, VF{}), VF{}, x) + e * p;
}

// log(1 + e^x), within 3e-7: e = e^-|x|, then e times a degree-7 polynomial fitted to log(1 + e)/e on [0, 1].
FOURD_INLINE VF softplus(VF x) {
  const VF e = vexp2(vmax(absolute(x) * -kLog2E, broadcast(-126.0f)));
  VF p = e * -0.008539206348359585f + 0.04408962279558182f;
  p = p * e - 0.10768169909715652f;
  p = p * e + 0.17745240032672882f;
  p = p * e - 0.24495463073253632f;
  p = p * e + 0.33275479078292847f;
  p = p * e - 0.4999740421772003f;
  p = p * e + 0.9999998211860657f;
  const VF above = select(less(x, VF{}), VF{}, x);  // NaN stays
  return above + e * p;
}

FOURD_INLINE VF sigmoid(VF x) {
  const VF limited = vmin(vmax(x, broadcast(-80.0f)), broadcast(80.0f));
  return select(less_equal(x, x), 1.0f / (1.0f + vexp2(limited * -kLog2E)), x);  // NaN stays
}

// e^-x for x > -88; NaN stays.
FOURD_INLINE VF exp_negative(VF x) {
  return select(less_equal(x, x), vexp2(vmin(vmax(x * -kLog2E, broadcast(-126.0f)), broadcast(127.0f))), x);
}

FOURD_INLINE float sum_lanes(VF x) {
  alignas(64) float lanes[W];
  store(lanes, x);
  V4 s = load4(lanes);
  for (int i = 4; i < W; i += 4) s += load4(lanes + i);
  return (s[0] + s[1]) + (s[2] + s[3]);
}

// Where n samples lie in the three planes, and in the occupancy grid. Positions beyond the border meet its zeros.
static void locate(const Field& f, const SampleSet& s, int n, const Places* places) {
  for (int i = 0; i < n; i += W) {
    const VF at[3] = {load(s.x + i), load(s.y + i), load(s.z + i)};
    for (int p = 0; p < 3; p++) {
      const VF u = vmin(vmax(at[f.column[p]] * f.scale_u + f.shift_u, broadcast(-1.0f)), broadcast(f.limit_u));
      const VF v = vmin(vmax(at[f.row[p]] * f.scale_v + f.shift_v, broadcast(-1.0f)), broadcast(f.limit_v));
      const VF u0 = vmin(vfloor(u), broadcast(f.limit_u - 1.0f)), v0 = vmin(vfloor(v), broadcast(f.limit_v - 1.0f));
      store(places->u[p] + i, u - u0);
      store(places->v[p] + i, v - v0);
      store_int(places->texel[p] + i, (to_int(v0) + 1) * f.row_stride + (to_int(u0) + 1) * f.hidden + p * f.plane_stride);
    }
    if (f.occupancy) {
      VI cell = VI{};
      VM inside = less_equal(VF{}, broadcast(1.0f));
      for (int d = 2; d >= 0; d--) {
        const VF c = at[d] * f.cell_scale + 0.5f * float(f.cells);
        const VM within = less_equal(VF{}, c) & less(c, broadcast(float(f.cells)));
        inside = inside & within;
        cell = cell * f.cells + to_int(keep(within, c));
      }
      cell = (VI)select(inside, (VF)cell, (VF)(VI{} + kUnknownCell));
      store_int(places->cell + i, cell);
    }
  }
}

// Pre-activations of NV vectors from `at` on of sample i: the bilinear lookups in all planes, and the bias.
template <int NV>
FOURD_INLINE void lookup(const Field& f, const Places& places, int i, int at, VF* out) {
  for (int k = 0; k < NV; k++) out[k] = load(f.bias + at + k * W);
#pragma GCC unroll 3
  for (int p = 0; p < 3; p++) {
    const float* t = f.packed + places.texel[p][i] + at;
    const float u = places.u[p][i], v = places.v[p][i];
    const float w[4] = {(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v};
    const int64_t tap[4] = {0, f.hidden, f.row_stride, f.row_stride + f.hidden};
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++)
      for (int k = 0; k < NV; k++) out[k] += w[c] * load(t + tap[c] + k * W);
  }
}

template <int NV, bool Rough>
FOURD_INLINE VF activate(const Field& f, const Places& places, int i, int at, float* hidden) {
  VF x[NV], dot = VF{};
  lookup<NV>(f, places, i, at, x);
  for (int k = 0; k < NV; k++) {
    const VF h = Rough ? rough_softplus(x[k]) : softplus(x[k]);
    store(hidden + at + k * W, h);
    dot += h * load(f.density_weight + at + k * W);
  }
  return dot;
}

// Hidden activations [U'] and raw density of sample i.
template <bool Rough>
FOURD_INLINE void evaluate_sample(const Field& f, const Places& places, int i, float* hidden, float* density) {
  float* const h = hidden + int64_t(i) * f.hidden;
  VF dot = VF{};
  int at = 0;
  for (; at + 4 * W <= f.hidden; at += 4 * W) dot += activate<4, Rough>(f, places, i, at, h);
  for (; at < f.hidden; at += W) dot += activate<1, Rough>(f, places, i, at, h);
  density[i] = sum_lanes(dot) + f.density_bias;
}

static void evaluate(const Field& f, const Places& places, int from, int to, float* hidden, float* density) {
  for (int i = from; i < to; i++) evaluate_sample<false>(f, places, i, hidden, density);
}

// Those of the samples `which` alone, roughly.
static void evaluate_some(const Field& f, const Places& places, const int32_t* which, int count, float* hidden, float* density) {
  for (int i = 0; i < count; i++) evaluate_sample<true>(f, places, which[i], hidden, density);
}

// Pre-activations [n][U'] that plane p adds to the samples 0..n-1.
static void plane_lookup(const Field& f, const Places& places, int p, int n, float* out) {
  for (int i = 0; i < n; i++) {
    const float* const t = f.packed + places.texel[p][i];
    const float u = places.u[p][i], v = places.v[p][i];
    for (int at = 0; at < f.hidden; at += W) {
      const VF upper = load(t + at) * (1 - u) + load(t + f.hidden + at) * u;
      const VF lower = load(t + f.row_stride + at) * (1 - u) + load(t + f.row_stride + f.hidden + at) * u;
      store(out + int64_t(i) * f.hidden + at, upper * (1 - v) + lower * v);
    }
  }
}

// Raw densities of n points whose pre-activations are the sums of three rows (each moving on by its step) and the bias.
static void sum_densities(const Field& f, const float* const* rows, const int64_t* steps, int n, float* density) {
  for (int i = 0; i < n; i++) {
    VF dot = VF{};
    for (int at = 0; at < f.hidden; at += W) {
      VF x = load(f.bias + at);
      for (int p = 0; p < 3; p++) x += load(rows[p] + i * steps[p] + at);
      dot += rough_softplus(x) * load(f.density_weight + at);
    }
    density[i] = sum_lanes(dot) + f.density_bias;
  }
}

// Opacities of n intervals between n + 1 samples; `decay` (may be null) receives d alpha / d raw density at the midpoint.
static void opacities(const float* distance, const float* density, int n, float* alpha, float* decay) {
  for (int i = 0; i < n; i += W) {
    const VF middle = 0.5f * (load(density + i) + load(density + i + 1)) - 1.0f;
    const VF length = load(distance + i + 1) - load(distance + i);
    const VF sigma = softplus(middle);
    const VF left = exp_negative(sigma * length);
    store(alpha + i, 1.0f - left);
    if (decay) store(decay + i, length * left * (1.0f - exp_negative(sigma)));
  }
}

// C[s][0..NV*W) = sum over j of a[s][j] b[j][..], for NS rows a[s] of length n.
template <int NS, int NV>
FOURD_INLINE void multiply(const float* const* a, const float* b, int64_t b_stride, int n, VF (*out)[NV]) {
  for (int s = 0; s < NS; s++)
    for (int k = 0; k < NV; k++) out[s][k] = VF{};
  for (int j = 0; j < n; j++) {
    VF row[NV];
    for (int k = 0; k < NV; k++) row[k] = load(b + j * b_stride + k * W);
#pragma GCC unroll 8
    for (int s = 0; s < NS; s++)
      for (int k = 0; k < NV; k++) out[s][k] += a[s][j] * row[k];
  }
}

constexpr int kRows = W == 16 ? 8 : 6;  // with two vectors each: what the registers hold

// sum[k] += part[s] sigmoid(colour k of sample s), over kRows samples; where `keep_colours` is given, the sigmoids go there too.
template <int NV>
FOURD_INLINE void colour_rows(const Field& f, const float* const* hidden, const float* part, int at, float* sum,
                              float* const* keep_colours) {
  VF c[kRows][NV];
  multiply<kRows, NV>(hidden, f.colour_weight + at, f.outputs, f.hidden, c);
  for (int k = 0; k < NV; k++) {
    VF total = load(sum + at + k * W);
    const VF bias = load(f.colour_bias + at + k * W);
    for (int s = 0; s < kRows; s++) {
      const VF g = sigmoid(c[s][k] + bias);
      if (keep_colours) store(keep_colours[s] + at + k * W, g);
      total += part[s] * g;
    }
    store(sum + at + k * W, total);
  }
}

// sum [K'] = sum over samples of part times sigmoid(colour); `colours` [count][K'] receives the sigmoids where not null.
static void add_colours(const Field& f, const float* hidden, const int32_t* which, const float* part, int count, float* sum,
                        float* colours) {
  for (int k = 0; k < f.outputs; k++) sum[k] = 0.0f;
  for (int first = 0; first < count; first += kRows) {
    const float* rows[kRows];
    float* kept[kRows];
    alignas(64) float unused[kMostOutputs];
    float parts[kRows];
    for (int s = 0; s < kRows; s++) {
      const bool there = first + s < count;
      const int i = there ? first + s : first;
      rows[s] = hidden + int64_t(which[i]) * f.hidden;
      kept[s] = !colours ? nullptr : there ? colours + int64_t(i) * f.outputs : unused;
      parts[s] = there ? part[i] : 0.0f;
    }
    int at = 0;
    for (; at + 2 * W <= f.outputs; at += 2 * W) colour_rows<2>(f, rows, parts, at, sum, colours ? kept : nullptr);
    for (; at < f.outputs; at += W) colour_rows<1>(f, rows, parts, at, sum, colours ? kept : nullptr);
  }
}

// NV vectors of kRows texels times the first layer.
template <int NV>
FOURD_INLINE void pack_block(const float* texels, int64_t channel_stride, int channels, const float* weight, int hidden,
                             float* packed) {
  VF sum[kRows][NV];
  for (int s = 0; s < kRows; s++)
    for (int k = 0; k < NV; k++) sum[s][k] = VF{};
  for (int c = 0; c < channels; c++) {
    VF w[NV];
    for (int k = 0; k < NV; k++) w[k] = load(weight + int64_t(c) * hidden + k * W);
    const float* const t = texels + c * channel_stride;
#pragma GCC unroll 8
    for (int s = 0; s < kRows; s++)
      for (int k = 0; k < NV; k++) sum[s][k] += t[s] * w[k];
  }
  for (int s = 0; s < kRows; s++)
    for (int k = 0; k < NV; k++) store(packed + int64_t(s) * hidden + k * W, sum[s][k]);
}

// One row of texels times the first layer [C][U']: channel rows of `width` texels -> packed [width][U'].
static void pack_row(const float* texels, int64_t channel_stride, int channels, int width, const float* weight, int hidden,
                     float* packed) {
  int x = 0;
  for (; x + kRows <= width; x += kRows) {
    float* const out = packed + int64_t(x) * hidden;
    int at = 0;
    for (; at + 2 * W <= hidden; at += 2 * W) pack_block<2>(texels + x, channel_stride, channels, weight + at, hidden, out + at);
    for (; at < hidden; at += W) pack_block<1>(texels + x, channel_stride, channels, weight + at, hidden, out + at);
  }
  for (; x < width; x++)
    for (int at = 0; at < hidden; at += W) {
      VF sum = VF{};
      for (int c = 0; c < channels; c++) sum += texels[c * channel_stride + x] * load(weight + int64_t(c) * hidden + at);
      store(packed + int64_t(x) * hidden + at, sum);
    }
}

#include "triplane_render_rays.inl"
#include "triplane_render_backward.inl"
