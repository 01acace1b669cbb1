// The loops over channels of triplane_sample_cpu.cpp for one instruction set (the compiler's vectors do here).

// out[c] = start + the sum of weighted texels.
static void sum_texels(float* out, const float* const* texels, const float* weights, int count, int64_t stride, int channels,
                       float start) {
  int c = 0;
  if (stride == 1) {
    for (; c + 2 * W <= channels; c += 2 * W) {
      VF first = broadcast(start), second = first;
      for (int i = 0; i < count; i++) {
        first += weights[i] * load(texels[i] + c);
        second += weights[i] * load(texels[i] + c + W);
      }
      store(out + c, first);
      store(out + c + W, second);
    }
  }
  for (; c < channels; c++) {
    float sum = start;
    for (int i = 0; i < count; i++) sum += weights[i] * texels[i][c * stride];
    out[c] = sum;
  }
}

// out += weight * values
static void add_scaled(float* out, const float* values, int channels, float weight) {
  int c = 0;
  for (; c + W <= channels; c += W) store(out + c, load(out + c) + weight * load(values + c));
  for (; c < channels; c++) out[c] += weight * values[c];
}

static float dot_texel(const float* gradient, const float* texel, int64_t stride, int channels) {
  VF sum = VF{};
  float rest = 0.0f;
  int c = 0;
  if (stride == 1)
    for (; c + W <= channels; c += W) sum += load(gradient + c) * load(texel + c);
  for (; c < channels; c++) rest += gradient[c] * texel[c * stride];
  for (int i = 0; i < W; i++) rest += sum[i];
  return rest;
}
