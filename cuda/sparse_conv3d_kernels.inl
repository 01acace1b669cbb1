// The hot loops of sparse_conv3d_cpu.cpp for one instruction set (see instruction_sets.inl).

// to[r] [V W] += from[r] [channels] * weight [channels, V W], for kRows rows.
template <int V>
FOURD_INLINE void multiply(const float* const* from, float* const* to, const float* weight, int channels, int stride) {
  VF sum[kRows][V];
  for (int r = 0; r < kRows; r++)
    for (int v = 0; v < V; v++) sum[r][v] = load(to[r] + v * W);
  for (int c = 0; c < channels; c++) {
    VF w[V];
    for (int v = 0; v < V; v++) w[v] = load(weight + size_t(c) * stride + v * W);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++) {
      const VF x = broadcast(from[r][c]);
      for (int v = 0; v < V; v++) sum[r][v] += x * w[v];
    }
  }
  for (int r = 0; r < kRows; r++)
    for (int v = 0; v < V; v++) store(to[r] + v * W, sum[r][v]);
}

// All pairs of one tap; their number is a multiple of kRows.
static void multiply_rows(const float* const* from, float* const* to, int64_t pairs, const float* weight, int channels,
                          int out_channels) {
  for (int64_t p = 0; p < pairs; p += kRows) {
    float* at[kRows];
    for (int o = 0; o < out_channels;) {
      for (int r = 0; r < kRows; r++) at[r] = to[p + r] + o;
      if (o + 2 * W <= out_channels) {
        multiply<2>(from + p, at, weight + o, channels, out_channels);
        o += 2 * W;
      } else {
        multiply<1>(from + p, at, weight + o, channels, out_channels);
        o += W;
      }
    }
  }
}

// gradient [R, V W] = sum over pairs of from[p][c..] (as a column) times by[p][o..] (as a row).
template <int R, int V>
FOURD_INLINE void outer(const float* const* from, float* const* by, int64_t pairs, int c, int o, float* gradient, int stride) {
  VF sum[R][V] = {};
  for (int64_t p = 0; p < pairs; p++) {
    VF g[V];
    for (int v = 0; v < V; v++) g[v] = load(by[p] + o + v * W);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const VF x = broadcast(from[p][c + r]);
      for (int v = 0; v < V; v++) sum[r][v] += x * g[v];
    }
  }
  for (int r = 0; r < R; r++)
    for (int v = 0; v < V; v++) store(gradient + size_t(c + r) * stride + o + v * W, sum[r][v]);
}

// gradient [channels, out_channels] of one tap's weight.
static void outer_rows(const float* const* from, float* const* by, int64_t pairs, float* gradient, int channels, int out_channels) {
  for (int o = 0; o < out_channels;) {
    const bool two = o + 2 * W <= out_channels;
    for (int c = 0; c < channels;) {
      const bool four = c + 4 <= channels;
      if (two && four) outer<4, 2>(from, by, pairs, c, o, gradient, out_channels);
      else if (two) outer<1, 2>(from, by, pairs, c, o, gradient, out_channels);
      else if (four) outer<4, 1>(from, by, pairs, c, o, gradient, out_channels);
      else outer<1, 1>(from, by, pairs, c, o, gradient, out_channels);
      c += four ? 4 : 1;
    }
    o += two ? 2 * W : W;
  }
}
