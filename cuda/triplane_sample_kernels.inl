// The loops over channels of triplane_sample_cpu.cpp for one instruction set (the compiler's vectors do here).

// out += weight * texel
static void add_texel(float* out, const float* texel, int64_t stride, int channels, float weight) {
  if (stride == 1)
    for (int c = 0; c < channels; c++) out[c] += weight * texel[c];
  else
    for (int c = 0; c < channels; c++) out[c] += weight * texel[c * stride];
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
