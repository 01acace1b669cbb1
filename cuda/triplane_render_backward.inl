// The backward pass along one ray, for one instruction set (included after triplane_render_rays.inl).

// Gradients of the raw densities and of what the colours are weighted with, from those of the ray's three sums.
static void march_backward(const Job& job, Ray* r, int n, const float* decay, Gradient* g) {
  const FourdTriplaneRenderArgs& a = *job.args;
  const float* const of_features = a.grad_features + r->index * a.outputs;
  const float of_distance = a.grad_distance_sum[r->index], of_weight = a.grad_weight_sum[r->index];
  for (int i = 0; i <= n; i++) {
    const float before = i > 0 ? r->weight[i - 1] : 0.0f, after = i < n ? r->weight[i] : 0.0f;
    r->part[i] = 0.5f * (before + after);
    const float* const colour = g->colours + int64_t(i) * job.field.outputs;
    float along = 0.0f;
    for (int k = 0; k < a.outputs; k++) along += of_features[k] * (1.002f * colour[k] - 0.001f);
    g->along[i] = along;
    g->density[i] = 0.0f;
  }
  // Transmittance in front of each interval once more; then back to front: `behind` is the gradient of what is left behind.
  float transmittance = 1.0f;
  for (int i = 0; i < n; i++) {
    g->transmittance[i] = transmittance;
    transmittance *= 1.0f - r->alpha[i] + 1e-10f;
  }
  float behind = 0.0f;
  for (int i = n - 1; i >= 0; i--) {
    const float middle = 0.5f * (r->sorted_distance[i] + r->sorted_distance[i + 1]);
    const float of_this = 0.5f * (g->along[i] + g->along[i + 1]) + of_distance * middle + of_weight;
    const float of_raw = 0.5f * g->transmittance[i] * (of_this - behind) * decay[i];
    g->density[i] += of_raw;
    g->density[i + 1] += of_raw;
    behind = of_this * r->alpha[i] + (1.0f - r->alpha[i] + 1e-10f) * behind;
  }
}

// Rows of the gradient of the pre-activations, [kRows][NV W] of them from `at` on.
template <int NV>
FOURD_INLINE void hidden_backward(const Field& f, const float* const* colour_rows, const float* density, float* const* hidden,
                                  float* const* out, int at) {
  VF c[kRows][NV];
  multiply<kRows, NV>(colour_rows, f.colour_weight_rows + at, f.hidden, f.outputs, c);
  for (int s = 0; s < kRows; s++)
    for (int k = 0; k < NV; k++) {
      const VF h = load(hidden[s] + at + k * W);  // d softplus / dx = sigmoid(x) = 1 - exp(-softplus(x))
      store(out[s] + at + k * W, (c[s][k] + density[s] * load(f.density_weight + at + k * W)) * (1.0f - exp_negative(h)));
    }
}

// sum[r][..] += sum over i of rows[r][i] values[i][at..], kRows rows at a time (missing ones point at `rows[0]`, into `spare`).
template <int NV>
FOURD_INLINE void add_outer_block(const float* const* rows, const float* values, int64_t stride, int n, float* const* sums) {
  VF c[kRows][NV];
  multiply<kRows, NV>(rows, values, stride, n, c);
  for (int s = 0; s < kRows; s++)
    if (sums[s])
      for (int k = 0; k < NV; k++) store(sums[s] + k * W, load(sums[s] + k * W) + c[s][k]);
}

// sum [rows][width] += rows [rows][n] (row stride) times values [n][width].
static void add_outer(const float* rows, int64_t row_stride, int row_count, const float* values, int width, int n, float* sum) {
  for (int first = 0; first < row_count; first += kRows) {
    const float* from[kRows];
    for (int s = 0; s < kRows; s++) from[s] = rows + (first + s < row_count ? first + s : first) * row_stride;
    for (int at = 0; at < width;) {
      float* to[kRows];
      for (int s = 0; s < kRows; s++) to[s] = first + s < row_count ? sum + int64_t(first + s) * width + at : nullptr;
      if (at + 2 * W <= width) {
        add_outer_block<2>(from, values + at, width, n, to);
        at += 2 * W;
      } else {
        add_outer_block<1>(from, values + at, width, n, to);
        at += W;
      }
    }
  }
}

// Keep, of `all` samples in order, those whose gradients show: the others' are below 1e-7 of the ray's largest. Their numbers go to
// `which`, the gradients and colours move up. Returns how many are kept.
static int keep_visible(const Job& job, Ray* r, Gradient* g, int all) {
  const int wide = job.field.outputs;
  float part = 0.0f, density = 0.0f;
  for (int i = 0; i < all; i++) {
    part = std::max(part, absolute_value(r->part[i]));
    density = std::max(density, absolute_value(g->density[i]));
  }
  int kept = 0;
  for (int i = 0; i < all; i++) {
    if (absolute_value(r->part[i]) <= 1e-7f * part && absolute_value(g->density[i]) <= 1e-7f * density) continue;  // NaN stays
    r->which[kept] = r->order[i];
    r->part[kept] = r->part[i];
    g->density[kept] = g->density[i];
    if (kept != i) std::memcpy(g->colours + int64_t(kept) * wide, g->colours + int64_t(i) * wide, sizeof(float) * wide);
    kept++;
  }
  return kept;
}

// One ray: adds to the task's sums for the decoder, appends its samples' gradients of the pre-activations to the task's list.
static void ray_backward(const Job& job, Ray* r, Gradient* g, TaskGradient* task) {
  const FourdTriplaneRenderArgs& a = *job.args;
  const Field& f = job.field;
  const int n = march(job, r, g->decay);
  int all = n + 1;
  for (int i = 0; i < all; i++) r->which[i] = r->order[i], r->part[i] = 0.0f;
  add_colours(f, r->hidden, r->which, r->part, all, r->sum, g->colours);
  march_backward(job, r, n, g->decay, g);
  all = keep_visible(job, r, g, all);

  // Gradients before the sigmoids, per sample in order [all][K'] and per output [K'][M]; hidden activations in order.
  const float* const of_features = a.grad_features + r->index * a.outputs;
  for (int i = 0; i < all; i++) {
    const float* const colour = g->colours + int64_t(i) * f.outputs;
    float* const out = g->before_sigmoid + int64_t(i) * f.outputs;
    for (int k = 0; k < a.outputs; k++) out[k] = 1.002f * r->part[i] * of_features[k] * colour[k] * (1.0f - colour[k]);
    for (int k = a.outputs; k < f.outputs; k++) out[k] = 0.0f;
    std::memcpy(g->hidden + int64_t(i) * f.hidden, r->hidden + int64_t(r->which[i]) * f.hidden, sizeof(float) * f.hidden);
  }
  for (int k = 0; k < a.outputs; k++)
    for (int i = 0; i < all; i++) g->per_output[int64_t(k) * all + i] = g->before_sigmoid[int64_t(i) * f.outputs + k];
  add_outer(g->per_output, all, a.outputs, g->hidden, f.hidden, all, task->colour_weight);
  add_outer(g->density, all, 1, g->hidden, f.hidden, all, task->density_weight);
  for (int i = 0; i < all; i++) {
    for (int k = 0; k < a.outputs; k++) task->colour_bias[k] += g->before_sigmoid[int64_t(i) * f.outputs + k];
    task->density_bias[0] += g->density[i];
  }

  float* const out = task->rows + int64_t(task->count) * f.hidden;
  for (int first = 0; first < all; first += kRows) {
    const float* colour_rows[kRows];
    float *hidden_rows[kRows], *out_rows[kRows], density[kRows];
    for (int s = 0; s < kRows; s++) {  // rows beyond the last repeat it
      const int i = first + s < all ? first + s : all - 1;
      colour_rows[s] = g->before_sigmoid + int64_t(i) * f.outputs;
      hidden_rows[s] = g->hidden + int64_t(i) * f.hidden;
      out_rows[s] = out + int64_t(i) * f.hidden;
      density[s] = g->density[i];
    }
    int at = 0;
    for (; at + 2 * W <= f.hidden; at += 2 * W) hidden_backward<2>(f, colour_rows, density, hidden_rows, out_rows, at);
    for (; at < f.hidden; at += W) hidden_backward<1>(f, colour_rows, density, hidden_rows, out_rows, at);
  }
  for (int i = 0; i < all; i++) {
    const int s = r->which[i], to = task->count + i;
    for (int at = 0; at < f.hidden; at += W)
      store(task->hidden_bias + at, load(task->hidden_bias + at) + load(out + int64_t(i) * f.hidden + at));
    for (int p = 0; p < 3; p++) {
      task->texel[p][to] = r->places.texel[p][s] - p * f.plane_stride;
      task->row[p][to] = task->texel[p][to] / f.row_stride;
      task->u[p][to] = r->places.u[p][s];
      task->v[p][to] = r->places.v[p][s];
    }
  }
  task->count += all;
}

// Add the rows of a task to those texels of plane p whose row is `band` modulo kBands.
static void scatter(const Field& f, const TaskGradient& task, int p, int band, float* texels) {
  float* const plane = texels + int64_t(p) * f.plane_stride;
  for (int i = 0; i < task.count; i++) {
    const float* const g = task.rows + int64_t(i) * f.hidden;
    for (int low = 0; low < 2; low++) {
      if ((task.row[p][i] + low) % kBands != band) continue;
      const float v = low ? task.v[p][i] : 1.0f - task.v[p][i], u = task.u[p][i];
      float* const t = plane + task.texel[p][i] + low * f.row_stride;
      for (int at = 0; at < f.hidden; at += W) {
        const VF row = load(g + at) * v;
        store(t + at, load(t + at) + row * (1.0f - u));
        store(t + f.hidden + at, load(t + f.hidden + at) + row * u);
      }
    }
  }
}

// One row of texels: gradients [width][U'] back through the first layer to channels, and of the layer itself (added).
static void unpack_row(const float* gradient, const float* texels, int64_t channel_stride, int width, const Field& f,
                       const float* weight_rows, int channels, float* scratch, float* out, float* weight_sum) {
  const int padded = f.channels_padded;
  for (int x = 0; x < width; x += kRows) {
    const float* rows[kRows];
    for (int s = 0; s < kRows; s++) rows[s] = gradient + int64_t(x + s < width ? x + s : x) * f.hidden;
    for (int at = 0; at < padded; at += W) {
      VF c[kRows][1];
      multiply<kRows, 1>(rows, weight_rows + at, padded, f.hidden, c);
      for (int s = 0; s < kRows; s++) store(scratch + s * padded + at, c[s][0]);
    }
    for (int c = 0; c < channels; c++)
      for (int s = 0; s < kRows && x + s < width; s++) out[c * channel_stride + x + s] = scratch[s * padded + c];
  }
  add_outer(texels, channel_stride, channels, gradient, f.hidden, width, weight_sum);
}
