// Sparse 3 x 3 x 3 convolution (fourdface/ops/sparse_conv3d.py; the torch twins `neighbour_map_reference` and
// `sparse_conv3d_reference` are the meaning).
//
// A site is (batch, depth, height, width), int32, inside [B, D, H, W]; each is given once, in any order. Tap t = 9 i + 3 j + k, with
// i, j, k in 0..2, of the output site (b, o) meets the input site (b, stride o + (i, j, k) - 1).
//
// fourd_neighbour_map: inputs [27, M] = index of the input site that the tap meets at the output site, or -1. With stride 2 the output
//   sites are found first: o is active where any tap meets an input; written in rising order to out_coordinates [8 N, 4] (an input
//   has at most 8), their number to out_count; inputs must have room for [27, 8 N] then, and rows are M long.
//   Returns kBadIndex where a site is given twice or lies outside.
// fourd_sparse_conv3d: out [M, O] = sum over taps of features [N, C][inputs[t, m]] weight [27, C, O]. O is a multiple of 16.
// fourd_sparse_conv3d_backward: grad_features [N, C] and grad_weight [27, C, O] of grad_out [M, O]; either may be null.
//   Needs weight_transposed [27, O, C_padded] with C_padded a multiple of 16, which is also the width of grad_features.
//   Each input may stand under a tap at one output only, as in every map made here.
// Sums run in the order of the taps (of the output sites, for the weights), so bits do not depend on the number of threads.
// Tolerance against the reference: 1e-5 of the largest value (order of sums).
#pragma once
#include "common.h"

struct FourdNeighbourArgs {
  const int32_t* coordinates;    // [N,4]
  int32_t* out_coordinates;      // [8 N,4], stride 2 only
  int32_t* inputs;               // [27,M]
  int64_t count;                 // N
  int64_t out_count;             // written with stride 2
  int32_t batch, depth, height, width;  // of the input
  int32_t stride;                // 1 or 2
  int32_t threads;
};

struct FourdSparseConvArgs {
  const float* features;         // [N,C]
  const int32_t* inputs;         // [27,M]
  const float* weight;           // [27,C,O]
  float* out;                    // [M,O]
  int64_t count;                 // N
  int64_t out_count;             // M
  int32_t channels;              // C
  int32_t out_channels;          // O
  int32_t threads;
};

struct FourdSparseConvBackwardArgs {
  FourdSparseConvArgs forward;       // out is not read
  const float* grad_out;             // [M,O]
  const float* weight_transposed;    // [27,O,C_padded]
  float* grad_features;              // [N,C_padded] or null
  float* grad_weight;                // [27,C,O] or null
  int32_t* outputs;                  // [27,N] scratch, CUDA only
  int32_t padded_channels;           // C_padded
};

FOURD_EXPORT int fourd_neighbour_map(FourdNeighbourArgs* args);
FOURD_EXPORT int fourd_sparse_conv3d(const FourdSparseConvArgs* args);
FOURD_EXPORT int fourd_sparse_conv3d_backward(const FourdSparseConvBackwardArgs* args);
