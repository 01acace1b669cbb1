// The hot loops of the backward pass of splat_cpu.cpp for one instruction set (see instruction_sets.inl).

FOURD_INLINE float sum_lanes(VF x) {
#if FOURD_X86 && FOURD_WIDTH == 16
  return _mm512_reduce_add_ps((__m512)x);
#else
  float part[W];
  __builtin_memcpy(part, &x, sizeof(part));
  for (int step = W / 2; step > 0; step /= 2)
    for (int i = 0; i < step; i++) part[i] += part[i + step];
  return part[0];
#endif
}

// Go through a tile front to back as blend_tile does, and note for every block that a Gaussian adds to: its alphas and the
// transmittances before it (alpha 0 where it adds nothing to a pixel). Returns the number of visits.
static int64_t record(const Projected* gaussians, const uint64_t* order, int64_t count, float tile_x, float tile_y,
                      float* transmittance, Scratch<Visit>* visits) {
  const VF threshold = broadcast(-kLog2Of255);
  int64_t found = 0;
  uint32_t alive = 0;
  for (int k = 0; k < kBlocks; k++)
    for (int s = 0; s < kPixels; s += W)
      if (bits(less(VF{}, load(transmittance + k * kPixels + s)))) alive |= 1u << k;
  for (int64_t n = 0; n < count && alive; n++) {
    if (n + 8 < count) __builtin_prefetch(gaussians + uint32_t(order[n + 8]));
    const Projected& g = gaussians[uint32_t(order[n])];
    const float dx_tile = tile_x + 0.5f - g.x, dy_tile = tile_y + 0.5f - g.y;
    uint32_t blocks = blocks_reached(g, dx_tile, dy_tile) & alive;
    if (size_t(found) + kBlocks > visits->capacity()) more_visits(visits, size_t(found));
    Visit* const out = visits->data();
    const VF a = broadcast(g.a), b = broadcast(g.b), c = broadcast(g.c), log2_opacity = broadcast(g.log2_opacity);
    while (blocks) {
      const int k = __builtin_ctz(blocks);
      blocks &= blocks - 1;
      Visit& visit = out[found];
      uint32_t any = 0, goes = 0;
      for (int s = 0; s < kPixels; s += W) {
        const VF dx = load(kPixelX + s) + (dx_tile + kBlockX[k]), dy = load(kPixelY + s) + (dy_tile + kBlockY[k]);
        const VF exponent = dx * (a * dx + b * dy) + (c * dy * dy + log2_opacity);
        const VF alpha = keep(less_equal(threshold, exponent), vmin(vexp2(exponent), broadcast(kMaxAlpha)));
        const VF before = load(transmittance + k * kPixels + s);
        const VF after = before - before * alpha;
        const VM goes_on = less(broadcast(kMinTransmittance), after);
        store(transmittance + k * kPixels + s, select(goes_on, after, flip_negative(before)));
        const VF added = keep(goes_on, alpha);
        store(visit.alpha + s, added);
        store(visit.before + s, before);
        any |= bits(less(VF{}, added));
        goes |= bits(goes_on);
      }
      if (goes == 0) alive &= ~(1u << k);
      if (any) {
        visit.gaussian = uint32_t(n);
        visit.block = uint32_t(k);
        found++;
      }
    }
  }
  return found;
}

// Back to front over the visits. With s the light that comes from behind a Gaussian per unit of transmittance, in the measure of the
// pixel's gradient, the gradient of its alpha is T (g.c - s), and in front of it s becomes s + alpha (g.c - s): no division.
// `sums` [count, kSums + channels] gets what each Gaussian collects in this tile; rows of Gaussians without a visit stay as they are.
template <int D>
FOURD_INLINE void collect_tile(const Projected* gaussians, const uint64_t* order, const Visit* visits, int64_t visit_count,
                               const PixelGradients& pixels, const float* colors, int channels, float* sums, float* scratch) {
  int64_t v = visit_count - 1;
  while (v >= 0) {
    const uint32_t n = visits[v].gaussian;
    const Projected& g = gaussians[uint32_t(order[n])];
    const float dx_tile = pixels.x + 0.5f - g.x, dy_tile = pixels.y + 0.5f - g.y;
    const float* const c_in = D == 3 ? g.color : colors + size_t(g.index) * channels;
    VF moment[kSums] = {}, color[D == 0 ? 1 : D] = {};
    if (D == 0)
      for (int d = 0; d < channels; d++) store(scratch + d * W, VF{});
    for (; v >= 0 && visits[v].gaussian == n; v--) {
      const Visit& visit = visits[v];
      const int k = int(visit.block);
      const float* const gradient = pixels.gradient + size_t(k) * pixels.stride;
      float* const behind = pixels.behind + k * kPixels;
#pragma GCC unroll 4
      for (int s = 0; s < kPixels; s += W) {
        const VF alpha = load(visit.alpha + s), before = load(visit.before + s);
        const VF weight = alpha * before;
        const VF by_depth = load(gradient + s);
        VF light = by_depth * g.z;
        if (D == 3) {
          for (int d = 0; d < 3; d++) {
            const VF by_color = load(gradient + (1 + d) * kPixels + s);
            light += by_color * g.color[d];
            color[d] += weight * by_color;
          }
        } else {
          for (int d = 0; d < channels; d++) {
            const VF by_color = load(gradient + (1 + d) * kPixels + s);
            light += by_color * c_in[d];
            store(scratch + d * W, load(scratch + d * W) + weight * by_color);
          }
        }
        const VF from_behind = load(behind + s);
        const VF difference = light - from_behind;
        store(behind + s, from_behind + alpha * difference);
        const VF e = keep(less(alpha, broadcast(kMaxAlpha)), weight * difference);
        const VF dx = load(kPixelX + s) + (dx_tile + kBlockX[k]), dy = load(kPixelY + s) + (dy_tile + kBlockY[k]);
        const VF ex = e * dx, ey = e * dy;
        moment[0] += e;
        moment[1] += ex;
        moment[2] += ey;
        moment[3] += ex * dx;
        moment[4] += ex * dy;
        moment[5] += ey * dy;
        moment[6] += weight * by_depth;
      }
    }
    float* const out = sums + size_t(n) * (kSums + channels);
    for (int i = 0; i < kSums; i++) out[i] = sum_lanes(moment[i]);
    if (D == 3) {
      for (int d = 0; d < 3; d++) out[kSums + d] = sum_lanes(color[d]);
    } else {
      for (int d = 0; d < channels; d++) out[kSums + d] = sum_lanes(load(scratch + d * W));
    }
  }
}

static void collect(const Projected* gaussians, const uint64_t* order, const Visit* visits, int64_t visit_count,
                    const PixelGradients& pixels, const float* colors, int channels, float* sums, float* scratch) {
  if (channels == 3) collect_tile<3>(gaussians, order, visits, visit_count, pixels, colors, channels, sums, scratch);
  else collect_tile<0>(gaussians, order, visits, visit_count, pixels, colors, channels, sums, scratch);
}

// From what the Gaussians collected on the picture (batch->sums) to the gradients of their parameters (batch->out) and of the camera
// (batch->camera, one vector a number: rows of the rotation, then the translation). The names are those of project_lanes; g_ stands
// for "gradient of".
FOURD_INLINE void project_back_lanes(GradientBatch* batch, const CameraConstants& cam, int i) {
  const VF mx = load(batch->in[0] + i), my = load(batch->in[1] + i), mz = load(batch->in[2] + i);
  const VF inverse_z = 1.0f / (cam.r[6] * mx + cam.r[7] * my + cam.r[8] * mz + cam.t[2]);
  const VF u = (cam.r[0] * mx + cam.r[1] * my + cam.r[2] * mz + cam.t[0]) * inverse_z;
  const VF v = (cam.r[3] * mx + cam.r[4] * my + cam.r[5] * mz + cam.t[1]) * inverse_z;
  const VF uc = vmin(vmax(u, broadcast(cam.u_min)), broadcast(cam.u_max));
  const VF vc = vmin(vmax(v, broadcast(cam.v_min)), broadcast(cam.v_max));
  const VF fu = cam.fx * inverse_z, fv = cam.fy * inverse_z;
  VF a[3], b[3], ca[3], cb[3];
  for (int d = 0; d < 3; d++) {
    a[d] = fu * (cam.r[d] - uc * cam.r[6 + d]);
    b[d] = fv * (cam.r[3 + d] - vc * cam.r[6 + d]);
  }
  const VF xx = load(batch->in[3] + i), xy = load(batch->in[4] + i), xz = load(batch->in[5] + i);
  const VF yy = load(batch->in[6] + i), yz = load(batch->in[7] + i), zz = load(batch->in[8] + i);
  ca[0] = xx * a[0] + xy * a[1] + xz * a[2], ca[1] = xy * a[0] + yy * a[1] + yz * a[2], ca[2] = xz * a[0] + yz * a[1] + zz * a[2];
  cb[0] = xx * b[0] + xy * b[1] + xz * b[2], cb[1] = xy * b[0] + yy * b[1] + yz * b[2], cb[2] = xz * b[0] + yz * b[1] + zz * b[2];
  const VF p00 = a[0] * ca[0] + a[1] * ca[1] + a[2] * ca[2];
  const VF s01 = b[0] * ca[0] + b[1] * ca[1] + b[2] * ca[2];
  const VF p11 = b[0] * cb[0] + b[1] * cb[1] + b[2] * cb[2];
  const VF s00 = p00 + cam.eps2d, s11 = p11 + cam.eps2d;
  const VF inverse_det = 1.0f / (s00 * s11 - s01 * s01);

  // exponent = d'Md + log2 opacity with M = -kHalfLog2E S^-1, so dS = S^-1 (sum e dd') S^-1 kHalfLog2E; e carries alpha but not ln 2
  const VF e = load(batch->sums[0] + i), ex = load(batch->sums[1] + i), ey = load(batch->sums[2] + i);
  const VF exx = load(batch->sums[3] + i), exy = load(batch->sums[4] + i), eyy = load(batch->sums[5] + i);
  const VF i00 = s11 * inverse_det, i01 = -s01 * inverse_det, i11 = s00 * inverse_det;
  const VF g_x = i00 * ex + i01 * ey, g_y = i01 * ex + i11 * ey;
  const VF t00 = i00 * exx + i01 * exy, t01 = i00 * exy + i01 * eyy, t10 = i01 * exx + i11 * exy, t11 = i01 * exy + i11 * eyy;
  VF g00 = 0.5f * (t00 * i00 + t01 * i01), g01 = 0.5f * (t00 * i01 + t01 * i11), g11 = 0.5f * (t10 * i01 + t11 * i11);

  const VF opacity = load(batch->in[9] + i);
  const VF seen = keep(less(VF{}, opacity), broadcast(1.0f));
  const VF g_opacity = e / vmax(opacity, broadcast(1e-30f)) * seen;
  if (cam.antialiased) {  // opacity sqrt(r), r = det P / det S
    const VF det_p = p00 * p11 - s01 * s01, r = det_p * inverse_det;
    const VF positive = keep(less(VF{}, r), broadcast(1.0f));
    const VF g_r = positive * e * 0.5f / vmax(r, broadcast(1e-30f));
    g00 += g_r * (p11 - r * s11) * inverse_det;
    g11 += g_r * (p00 - r * s00) * inverse_det;
    g01 += g_r * (r - 1.0f) * s01 * inverse_det;
  }

  VF g_a[3], g_b[3];
  for (int d = 0; d < 3; d++) {
    g_a[d] = 2.0f * (g00 * ca[d] + g01 * cb[d]);
    g_b[d] = 2.0f * (g01 * ca[d] + g11 * cb[d]);
  }
  VF g_u = g_x * cam.fx, g_v = g_y * cam.fy, g_inverse_z = VF{};
  VF along_u = VF{}, along_v = VF{};
  for (int d = 0; d < 3; d++) {
    g_inverse_z += cam.fx * g_a[d] * (cam.r[d] - uc * cam.r[6 + d]) + cam.fy * g_b[d] * (cam.r[3 + d] - vc * cam.r[6 + d]);
    along_u += g_a[d] * cam.r[6 + d];
    along_v += g_b[d] * cam.r[6 + d];
  }
  const VF free_u = keep(less_equal(absolute(u - uc), VF{}), broadcast(1.0f)), free_v = keep(less_equal(absolute(v - vc), VF{}), broadcast(1.0f));
  g_u -= free_u * fu * along_u;
  g_v -= free_v * fv * along_v;
  const VF g_px = g_u * inverse_z, g_py = g_v * inverse_z;
  const VF g_pz = load(batch->sums[6] + i) - (g_u * u + g_v * v) * inverse_z - g_inverse_z * inverse_z * inverse_z;

  const VM touched = less(VF{}, load(batch->touched + i));
  const VF gradient[10] = {
      cam.r[0] * g_px + cam.r[3] * g_py + cam.r[6] * g_pz,
      cam.r[1] * g_px + cam.r[4] * g_py + cam.r[7] * g_pz,
      cam.r[2] * g_px + cam.r[5] * g_py + cam.r[8] * g_pz,
      g00 * a[0] * a[0] + 2.0f * g01 * a[0] * b[0] + g11 * b[0] * b[0],
      2.0f * (g00 * a[0] * a[1] + g01 * (a[0] * b[1] + a[1] * b[0]) + g11 * b[0] * b[1]),
      2.0f * (g00 * a[0] * a[2] + g01 * (a[0] * b[2] + a[2] * b[0]) + g11 * b[0] * b[2]),
      g00 * a[1] * a[1] + 2.0f * g01 * a[1] * b[1] + g11 * b[1] * b[1],
      2.0f * (g00 * a[1] * a[2] + g01 * (a[1] * b[2] + a[2] * b[1]) + g11 * b[1] * b[2]),
      g00 * a[2] * a[2] + 2.0f * g01 * a[2] * b[2] + g11 * b[2] * b[2],
      g_opacity,
  };
  for (int d = 0; d < 10; d++) store(batch->out[d] + i, keep(touched, gradient[d]));
  const VF point[3] = {mx, my, mz}, g_point[3] = {g_px, g_py, g_pz};
  for (int row = 0; row < 3; row++) {
    for (int d = 0; d < 3; d++) {
      VF value = g_point[row] * point[d];
      if (row == 0) value += fu * g_a[d];
      if (row == 1) value += fv * g_b[d];
      if (row == 2) value -= fu * uc * g_a[d] + fv * vc * g_b[d];
      float* const at = batch->camera[4 * row + d];
      store(at, load(at) + keep(touched, value));
    }
    float* const at = batch->camera[4 * row + 3];
    store(at, load(at) + keep(touched, g_point[row]));
  }
}

static void project_back(GradientBatch* batch, const CameraConstants& cam, int n, double* camera) {
  std::memset(batch->camera, 0, sizeof(batch->camera));
  for (int i = 0; i < n; i += W) project_back_lanes(batch, cam, i);
  for (int d = 0; d < 12; d++) camera[d] += sum_lanes(load(batch->camera[d]));
}
