// The two hot loops of splat_cpu.cpp for one instruction set (see simd.inl for how this file is included).

// Project `n` <= kBlock Gaussians, already transposed into block->in, to block->out (screen position, conic, extent).
// A lane that must be skipped gets first_col > last_col.
FOURD_INLINE void project_lanes(ProjectBlock* block, const CameraConstants& cam, int i) {
  const VF mx = load(block->in[0] + i), my = load(block->in[1] + i), mz = load(block->in[2] + i);
  const VF z = cam.r[6] * mx + cam.r[7] * my + cam.r[8] * mz + cam.t[2];
  const VF inverse_z = 1.0f / z;
  const VF u = (cam.r[0] * mx + cam.r[1] * my + cam.r[2] * mz + cam.t[0]) * inverse_z;
  const VF v = (cam.r[3] * mx + cam.r[4] * my + cam.r[5] * mz + cam.t[1]) * inverse_z;
  const VF uc = vmin(vmax(u, broadcast(cam.u_min)), broadcast(cam.u_max));
  const VF vc = vmin(vmax(v, broadcast(cam.v_min)), broadcast(cam.v_max));
  // rows of J R, the derivative of the projection by world position
  const VF fu = cam.fx * inverse_z, fv = cam.fy * inverse_z;
  const VF a0 = fu * (cam.r[0] - uc * cam.r[6]), a1 = fu * (cam.r[1] - uc * cam.r[7]), a2 = fu * (cam.r[2] - uc * cam.r[8]);
  const VF b0 = fv * (cam.r[3] - vc * cam.r[6]), b1 = fv * (cam.r[4] - vc * cam.r[7]), b2 = fv * (cam.r[5] - vc * cam.r[8]);
  const VF xx = load(block->in[3] + i), xy = load(block->in[4] + i), xz = load(block->in[5] + i);
  const VF yy = load(block->in[6] + i), yz = load(block->in[7] + i), zz = load(block->in[8] + i);
  const VF ca0 = xx * a0 + xy * a1 + xz * a2, ca1 = xy * a0 + yy * a1 + yz * a2, ca2 = xz * a0 + yz * a1 + zz * a2;
  const VF cb0 = xx * b0 + xy * b1 + xz * b2, cb1 = xy * b0 + yy * b1 + yz * b2, cb2 = xz * b0 + yz * b1 + zz * b2;
  const VF p00 = a0 * ca0 + a1 * ca1 + a2 * ca2;
  const VF s01 = b0 * ca0 + b1 * ca1 + b2 * ca2;
  const VF p11 = b0 * cb0 + b1 * cb1 + b2 * cb2;
  const VF s00 = p00 + cam.eps2d, s11 = p11 + cam.eps2d;
  const VF det = s00 * s11 - s01 * s01;
  VF opacity = load(block->in[9] + i);
  if (cam.antialiased) opacity *= vsqrt(vmax((p00 * p11 - s01 * s01) / det, broadcast(0.0f)));

  const VF log2_opacity = vlog2(vmax(opacity, broadcast(1e-30f)));
  const VF room = log2_opacity + kLog2Of255;  // how far the exponent may fall before alpha < 1/255
  const VF q_max = room * 1.3862943611198906f;  // q at which it does: 2 ln 2 * room
  const VF rx = vsqrt(vmax(q_max * s00, broadcast(0.0f))), ry = vsqrt(vmax(q_max * s11, broadcast(0.0f)));
  const VF x = cam.fx * u + cam.cx, y = cam.fy * v + cam.cy;
  // first and last pixel whose centre lies inside the extent, clamped so that the conversion to integers is safe
  const VF limit_x = broadcast(cam.width), limit_y = broadcast(cam.height), before = broadcast(-1.0f), zero = broadcast(0.0f);
  const VF col0 = vceil(vmin(vmax(x - rx - 0.5f, before), limit_x)), col1 = vfloor(vmin(vmax(x + rx - 0.5f, before), limit_x));
  const VF row0 = vceil(vmin(vmax(y - ry - 0.5f, before), limit_y)), row1 = vfloor(vmin(vmax(y + ry - 0.5f, before), limit_y));
  const VF first_col = vmax(col0, zero), last_col = vmin(col1, limit_x - 1.0f);
  const VF first_row = vmax(row0, zero), last_row = vmin(row1, limit_y - 1.0f);

  const VF inverse_det = 1.0f / det;
  const VF a = -kHalfLog2E * (s11 * inverse_det);
  const VF b = (2.0f * kHalfLog2E) * (s01 * inverse_det);
  const VF c = -kHalfLog2E * (s00 * inverse_det);
  const VF large = broadcast(1e30f);
  // written so that a NaN anywhere makes the lane invisible
  const VI visible = (z >= cam.near_z) & (det > zero) & (room >= zero) & (absolute(x) < large) & (absolute(y) < large) &
                     (absolute(a) < large) & (absolute(c) < large) & (rx < large) & (ry < large) &
                     (opacity < large) & (first_col <= last_col) & (first_row <= last_row);
  store(block->out[0] + i, x);
  store(block->out[1] + i, y);
  store(block->out[2] + i, a);
  store(block->out[3] + i, b);
  store(block->out[4] + i, c);
  store(block->out[5] + i, -0.5f * b / a);
  store(block->out[6] + i, log2_opacity);
  store(block->out[7] + i, z);
  store(block->out[8] + i, rx);
  store(block->out[9] + i, ry);
  store(block->out[10] + i, select(visible, first_col, broadcast(1.0f)));
  store(block->out[11] + i, select(visible, last_col, zero));
  store(block->out[12] + i, first_row);
  store(block->out[13] + i, last_row);
}

static void project_block(ProjectBlock* block, const CameraConstants& cam, int n) {
  for (int i = 0; i < n; i += W) project_lanes(block, cam, i);
}

// Which rows of a tile does the Gaussian reach within one column of W pixels? The exponent along a row is a parabola in x: its
// largest value there is at the top, moved into the column. Bit r of the result stands for row r.
FOURD_INLINE uint32_t rows_reached(const Projected& g, float dx_first, float dy_first) {
  uint32_t rows = 0;
  for (int r = 0; r < kTile; r += W) {
    const VF dy = iota() + (dy_first + float(r));
    const VF dx = vmin(vmax(g.k * dy, broadcast(dx_first)), broadcast(dx_first + float(W - 1)));
    const VF exponent = dx * (g.a * dx + g.b * dy) + (g.c * dy * dy + g.log2_opacity);
    rows |= bits(exponent >= -kLog2Of255) << r;
  }
  return rows;
}

// Blend the Gaussians of one tile, front to back. A pixel's transmittance turns negative (same size) when it has ended.
// D = 3 keeps the colours in the record; D = 0 means `channels` many, read from `colors` [N, channels].
template <int D, bool WithDepth>
FOURD_INLINE void blend_tile(const Projected* gaussians, const uint64_t* order, int64_t count, TileBuffer* tile, const float* colors,
                             int channels) {
  constexpr int kColumns = kTile / W;
  uint32_t alive[kColumns];
  for (int s = 0; s < kColumns; s++) {
    alive[s] = 0;
    for (int r = 0; r < kTile; r++) alive[s] |= (bits(load(tile->transmittance + r * kTile + s * W) > 0.0f) ? 1u : 0u) << r;
  }
  for (int64_t n = 0; n < count; n++) {
    if (n + 6 < count) __builtin_prefetch(gaussians + uint32_t(order[n + 6]));
    const Projected& g = gaussians[uint32_t(order[n])];
    const float dx_tile = tile->x + 0.5f - g.x, dy_tile = tile->y + 0.5f - g.y;
    uint32_t any_alive = 0;
    for (int s = 0; s < kColumns; s++) {
      const float dx_first = dx_tile + float(s * W);
      uint32_t rows = alive[s] ? (rows_reached(g, dx_first, dy_tile) & alive[s]) : 0u;
      const VF dx = iota() + dx_first;
      const VF e0 = g.a * dx * dx + g.log2_opacity;
      const VF e1 = g.b * dx;
      while (rows) {
        const int r = __builtin_ctz(rows);
        rows &= rows - 1;
        const float dy = dy_tile + float(r);
        const VF exponent = e0 + dy * (e1 + g.c * dy);
        const VF alpha = keep(exponent >= -kLog2Of255, vmin(vexp2(exponent), broadcast(kMaxAlpha)));
        const int at = r * kTile + s * W;
        const VF before = load(tile->transmittance + at);
        const VF after = before - before * alpha;
        const VI ended = after <= kMinTransmittance;
        const VF weight = keep(~ended, before * alpha);
        store(tile->transmittance + at, select(ended, flip_negative(before), after));
        if (WithDepth) store(tile->depth + at, load(tile->depth + at) + weight * g.z);
        if (D == 3) {
          store(tile->color + at, load(tile->color + at) + weight * g.color[0]);
          store(tile->color + kTile * kTile + at, load(tile->color + kTile * kTile + at) + weight * g.color[1]);
          store(tile->color + 2 * kTile * kTile + at, load(tile->color + 2 * kTile * kTile + at) + weight * g.color[2]);
        } else {
          const float* c = colors + size_t(g.index) * channels;
          for (int d = 0; d < channels; d++) {
            float* p = tile->color + size_t(d) * kTile * kTile + at;
            store(p, load(p) + weight * c[d]);
          }
        }
        if (bits(ended) == ((1ull << W) - 1)) alive[s] &= ~(1u << r);
      }
      any_alive |= alive[s];
    }
    if (!any_alive) break;
  }
}

static void blend(const Projected* gaussians, const uint64_t* order, int64_t count, TileBuffer* tile, const float* colors,
                  int channels, bool with_depth) {
  if (channels == 3 && with_depth) blend_tile<3, true>(gaussians, order, count, tile, colors, channels);
  else if (channels == 3) blend_tile<3, false>(gaussians, order, count, tile, colors, channels);
  else if (with_depth) blend_tile<0, true>(gaussians, order, count, tile, colors, channels);
  else blend_tile<0, false>(gaussians, order, count, tile, colors, channels);
}
