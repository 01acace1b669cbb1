// The two hot loops of splat_cpu.cpp for one instruction set (see instruction_sets.inl).

// The exponent a dx^2 + b dx dy + c dy^2 + log2_opacity, and where it is largest along lines (see Projected).
struct Quadratic {
  VF a, b, c, k_x, k_y, log2_opacity;
};

// Is alpha >= 1/255 anywhere in a box? The exponent is concave, so its largest value over the box lies on an edge that faces the
// centre (or is the centre): the better of the best point on the nearest vertical line and on the nearest horizontal line.
FOURD_INLINE VM reaches(const Quadratic& q, VF left, VF right, VF top, VF bottom) {
  const VF near_x = vmin(vmax(VF{}, left), right), near_y = vmin(vmax(VF{}, top), bottom);
  const VF best_y = vmin(vmax(q.k_y * near_x, top), bottom), best_x = vmin(vmax(q.k_x * near_y, left), right);
  const VF on_vertical = near_x * (q.a * near_x + q.b * best_y) + (q.c * best_y * best_y + q.log2_opacity);
  const VF on_horizontal = best_x * (q.a * best_x + q.b * near_y) + (q.c * near_y * near_y + q.log2_opacity);
  return less_equal(broadcast(-kLog2Of255), vmax(on_vertical, on_horizontal));
}

// Project `n` <= kBatch Gaussians, already transposed into batch->in, to batch->out (screen position, conic, extent) and
// list the tiles they touch. A lane that must be skipped gets tiles = 0.
FOURD_INLINE void project_lanes(ProjectBatch* batch, const CameraConstants& cam, int i) {
  const VF mx = load(batch->in[0] + i), my = load(batch->in[1] + i), mz = load(batch->in[2] + i);
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
  const VF xx = load(batch->in[3] + i), xy = load(batch->in[4] + i), xz = load(batch->in[5] + i);
  const VF yy = load(batch->in[6] + i), yz = load(batch->in[7] + i), zz = load(batch->in[8] + i);
  const VF ca0 = xx * a0 + xy * a1 + xz * a2, ca1 = xy * a0 + yy * a1 + yz * a2, ca2 = xz * a0 + yz * a1 + zz * a2;
  const VF cb0 = xx * b0 + xy * b1 + xz * b2, cb1 = xy * b0 + yy * b1 + yz * b2, cb2 = xz * b0 + yz * b1 + zz * b2;
  const VF p00 = a0 * ca0 + a1 * ca1 + a2 * ca2;
  const VF s01 = b0 * ca0 + b1 * ca1 + b2 * ca2;
  const VF p11 = b0 * cb0 + b1 * cb1 + b2 * cb2;
  const VF s00 = p00 + cam.eps2d, s11 = p11 + cam.eps2d;
  const VF det = s00 * s11 - s01 * s01;
  VF opacity = load(batch->in[9] + i);
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
  const VF huge = broadcast(1e30f);
  // each test is written so that a NaN fails it
  const VM visible = less_equal(broadcast(cam.near_z), z) & less(zero, det) & less_equal(zero, room) & less(absolute(x), huge) &
                     less(absolute(y), huge) & less(absolute(a), huge) & less(absolute(c), huge) & less(rx, huge) &
                     less(ry, huge) & less(opacity, huge) & less_equal(first_col, last_col) & less_equal(first_row, last_row);
  const VF k_x = -0.5f * b / a, k_y = -0.5f * b / c;
  store(batch->out[0] + i, x);
  store(batch->out[1] + i, y);
  store(batch->out[2] + i, a);
  store(batch->out[3] + i, b);
  store(batch->out[4] + i, c);
  store(batch->out[5] + i, k_x);
  store(batch->out[6] + i, k_y);
  store(batch->out[7] + i, log2_opacity);
  store(batch->out[8] + i, z);
  store(batch->out[9] + i, rx);
  store(batch->out[10] + i, ry);

  // The tiles: most Gaussians are small and touch at most 2 x 2, for which the corner tiles are tested here, all lanes at once.
  const VI tx0 = to_int(first_col) / kTile, tx1 = to_int(last_col) / kTile;
  const VI ty0 = to_int(first_row) / kTile, ty1 = to_int(last_row) / kTile;
  const VF left = to_float(tx1 * kTile) - 0.5f - x, right = left + 1.0f;  // last centre of the left tiles, first of the right ones
  const VF above = to_float(ty1 * kTile) - 0.5f - y, below = above + 1.0f;
  const VF far = broadcast(1e9f);
  const Quadratic q{a, b, c, k_x, k_y, log2_opacity};
  const VI wide = one_if(less(to_float(tx0), to_float(tx1))), tall = one_if(less(to_float(ty0), to_float(ty1)));
  VI tiles = wide * tall * (one_if(reaches(q, -far, left, -far, above)) + 2 * one_if(reaches(q, right, far, -far, above)) +
                            4 * one_if(reaches(q, -far, left, below, far)) + 8 * one_if(reaches(q, right, far, below, far)));
  tiles += (1 - wide * tall) * (1 + 2 * wide + 4 * tall);
  const VI large = one_if(less(broadcast(1.5f), vmax(to_float(tx1 - tx0), to_float(ty1 - ty0))));
  tiles += large * (kLarge - tiles);
  store_int(batch->tiles + i, tiles * one_if(visible));
  store_int(batch->range[0] + i, tx0);
  store_int(batch->range[1] + i, tx1);
  store_int(batch->range[2] + i, ty0);
  store_int(batch->range[3] + i, ty1);
}

static void project_batch(ProjectBatch* batch, const CameraConstants& cam, int n) {
  for (int i = 0; i < n; i += W) project_lanes(batch, cam, i);
}

// Which of the 4 x 4 blocks of a tile does the Gaussian reach? Bit 4 * row + column stands for a block.
FOURD_INLINE uint32_t blocks_reached(const Projected& g, float dx_tile, float dy_tile) {
  const Quadratic q{broadcast(g.a),   broadcast(g.b),   broadcast(g.c),
                    broadcast(g.k_x), broadcast(g.k_y), broadcast(g.log2_opacity)};
  uint32_t reached = 0;
  for (int i = 0; i < kBlocks; i += W) {
    const VF left = load(kBlockX + i) + dx_tile, top = load(kBlockY + i) + dy_tile;
    reached |= bits(reaches(q, left, left + float(kSide - 1), top, top + float(kSide - 1))) << i;
  }
  return reached;
}

// Blend the Gaussians of one tile, front to back. The state of a tile is kept block by block: transmittance, depth, colours, each
// for the 16 pixels of the block. A pixel's transmittance turns negative (same size) when it has ended.
// D = 3 keeps the colours in the record; D = 0 means `channels` many, read from `colors` [N, channels].
template <int D, bool WithDepth>
FOURD_INLINE void blend_tile(const Projected* gaussians, const uint64_t* order, int64_t count, const TileBuffer& tile,
                             const float* colors, int channels) {
  float* const state = tile.state;
  const size_t stride = tile.stride;
  const float tile_x = tile.x + 0.5f, tile_y = tile.y + 0.5f;
  const VF threshold = broadcast(-kLog2Of255);
  uint32_t alive = 0;
  for (int k = 0; k < kBlocks; k++)
    for (int s = 0; s < kPixels; s += W)
      if (bits(less(VF{}, load(state + k * stride + s)))) alive |= 1u << k;
  for (int64_t n = 0; n < count; n++) {
    if (n + 8 < count) __builtin_prefetch(gaussians + uint32_t(order[n + 8]));
    const Projected& g = gaussians[uint32_t(order[n])];
    const float dx_tile = tile_x - g.x, dy_tile = tile_y - g.y;
    uint32_t blocks = blocks_reached(g, dx_tile, dy_tile) & alive;
    const VF a = broadcast(g.a), b = broadcast(g.b), c = broadcast(g.c), log2_opacity = broadcast(g.log2_opacity);
    VF lane_x[kPixels / W], lane_y[kPixels / W];
    for (int s = 0; s < kPixels / W; s++) {
      lane_x[s] = load(kPixelX + s * W) + dx_tile;
      lane_y[s] = load(kPixelY + s * W) + dy_tile;
    }
    while (blocks) {
      const int k = __builtin_ctz(blocks);
      blocks &= blocks - 1;
      float* const block = state + k * stride;
      const VF block_x = broadcast(kBlockX[k]), block_y = broadcast(kBlockY[k]);
      bool all_ended = true;
#pragma GCC unroll 4
      for (int s = 0; s < kPixels; s += W) {
        const VF dx = lane_x[s / W] + block_x, dy = lane_y[s / W] + block_y;
        const VF exponent = dx * (a * dx + b * dy) + (c * dy * dy + log2_opacity);
        const VF alpha = keep(less_equal(threshold, exponent), vmin(vexp2(exponent), broadcast(kMaxAlpha)));
        const VF before = load(block + s);
        const VF after = before - before * alpha;
        const VM goes_on = less(broadcast(kMinTransmittance), after);
        const VF weight = keep(goes_on, before * alpha);
        store(block + s, select(goes_on, after, flip_negative(before)));
        if (WithDepth) store(block + kPixels + s, load(block + kPixels + s) + weight * g.z);
        float* const color = block + 2 * kPixels + s;
        if (D == 3) {
          for (int d = 0; d < 3; d++) store(color + d * kPixels, load(color + d * kPixels) + weight * g.color[d]);
        } else {
          const float* const c_in = colors + size_t(g.index) * channels;
          for (int d = 0; d < channels; d++) store(color + d * kPixels, load(color + d * kPixels) + weight * c_in[d]);
        }
        all_ended = all_ended && bits(goes_on) == 0;
      }
      if (all_ended) alive &= ~(1u << k);
    }
    if (!alive) break;
  }
}

static void blend(const Projected* gaussians, const uint64_t* order, int64_t count, const TileBuffer& tile, const float* colors,
                  int channels, bool with_depth) {
  if (channels == 3 && with_depth) blend_tile<3, true>(gaussians, order, count, tile, colors, channels);
  else if (channels == 3) blend_tile<3, false>(gaussians, order, count, tile, colors, channels);
  else if (with_depth) blend_tile<0, true>(gaussians, order, count, tile, colors, channels);
  else blend_tile<0, false>(gaussians, order, count, tile, colors, channels);
}

// Four pixels as 8-bit RGB: colours in three planes and transmittances, over four pixels of background.
FOURD_INLINE void finish_four(const float* color, const float* transmittance, const uint8_t* background, uint8_t* out) {
  const V4 r = load4(color), g = load4(color + kPixels), b = load4(color + 2 * kPixels);
  const V4 t = (V4)((V4I)load4(transmittance) & INT32_MAX);
  const V4 rg = FOURD_SHUFFLE(r, g, 0, 4, 1, 5), gb = FOURD_SHUFFLE(g, b, 1, 5, 2, 6), br = FOURD_SHUFFLE(b, r, 2, 7, 3, 3);
  const V4 color4[3] = {FOURD_SHUFFLE(FOURD_SHUFFLE(rg, b, 0, 1, 4, 2), b, 0, 1, 2, 3),
                        FOURD_SHUFFLE(FOURD_SHUFFLE(gb, r, 0, 1, 6, 2), r, 0, 1, 2, 3), FOURD_SHUFFLE(br, g, 0, 1, 7, 2)};
  const V4 t4[3] = {FOURD_SHUFFLE(t, t, 0, 0, 0, 1), FOURD_SHUFFLE(t, t, 1, 1, 2, 2), FOURD_SHUFFLE(t, t, 2, 3, 3, 3)};
  for (int i = 0; i < 3; i++) {
    V4B level;
    __builtin_memcpy(&level, background + 4 * i, 4);
    V4 x = color4[i] * 255.0f + t4[i] * __builtin_convertvector(level, V4) + 0.5f;
    x = x > 0.0f ? x : V4{};
    x = x < 255.5f ? x : V4{} + 255.5f;
    level = __builtin_convertvector(__builtin_convertvector(x, V4I), V4B);
    __builtin_memcpy(out + 4 * i, &level, 4);
  }
}

// One tile as 8-bit RGB [kTile, kTile, 3] over a background of that shape.
static void finish(const TileBuffer& tile, const uint8_t* background, uint8_t* out) {
  for (int k = 0; k < kBlocks; k++) {
    const float* const block = tile.state + k * tile.stride;
    const int at = (int(kBlockY[k]) * kTile + int(kBlockX[k])) * 3;
    for (int r = 0; r < kSide; r++)
      finish_four(block + 2 * kPixels + r * kSide, block + r * kSide, background + at + r * kTile * 3, out + at + r * kTile * 3);
  }
}

#include "splat_backward_kernels.inl"
