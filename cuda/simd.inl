// Vectors of FOURD_WIDTH floats for the instruction set being compiled. instruction_sets.inl includes this once per set, inside
// its namespace and between FOURD_BEGIN_TARGET and FOURD_END_TARGET; so no include guard and no system header here.
// Arithmetic is the compiler's own (GCC/Clang vector extensions), which contract a*b+c to one FMA where the set has it.

#define FOURD_INLINE static inline __attribute__((always_inline))

constexpr int W = FOURD_WIDTH;
typedef float VF __attribute__((vector_size(4 * FOURD_WIDTH)));
typedef int32_t VI __attribute__((vector_size(4 * FOURD_WIDTH)));
typedef uint32_t VU __attribute__((vector_size(4 * FOURD_WIDTH)));  // wraps around, where VI must not
typedef float VFU __attribute__((vector_size(4 * FOURD_WIDTH), aligned(4), may_alias));

FOURD_INLINE VF broadcast(float x) { return x - VF{}; }
FOURD_INLINE VF load(const float* p) { return *reinterpret_cast<const VFU*>(p); }
FOURD_INLINE void store(float* p, VF x) { *reinterpret_cast<VFU*>(p) = x; }
FOURD_INLINE VF iota() {
  VF r;
  for (int i = 0; i < W; i++) r[i] = float(i);
  return r;
}

FOURD_INLINE VF flip_negative(VF a) { return (VF)((VI)a | INT32_MIN); }  // -|a|
FOURD_INLINE VF absolute(VF a) { return (VF)((VI)a & INT32_MAX); }

FOURD_INLINE VI to_int(VF a) { return __builtin_convertvector(a, VI); }  // towards zero
FOURD_INLINE VF to_float(VI a) { return __builtin_convertvector(a, VF); }
FOURD_INLINE void store_int(int32_t* p, VI x) { __builtin_memcpy(p, &x, sizeof(x)); }

// Masks (VM), one bit or one all-ones integer per lane: keep = a where set, else 0; select = a where set, else b.
#if FOURD_X86 && FOURD_WIDTH == 16
typedef __mmask16 VM;
FOURD_INLINE VM less_equal(VF a, VF b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LE_OQ); }
FOURD_INLINE VM less(VF a, VF b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ); }
FOURD_INLINE VF keep(VM mask, VF a) { return (VF)_mm512_maskz_mov_ps(mask, (__m512)a); }
FOURD_INLINE VF select(VM mask, VF a, VF b) { return (VF)_mm512_mask_mov_ps((__m512)b, mask, (__m512)a); }
FOURD_INLINE uint32_t bits(VM mask) { return mask; }
FOURD_INLINE VF vmin(VF a, VF b) { return (VF)_mm512_min_ps((__m512)a, (__m512)b); }
FOURD_INLINE VF vmax(VF a, VF b) { return (VF)_mm512_max_ps((__m512)a, (__m512)b); }
FOURD_INLINE VF vsqrt(VF a) { return (VF)_mm512_sqrt_ps((__m512)a); }
#else
typedef VI VM;
FOURD_INLINE VM less_equal(VF a, VF b) { return a <= b; }
FOURD_INLINE VM less(VF a, VF b) { return a < b; }
FOURD_INLINE VF keep(VM mask, VF a) { return (VF)(mask & (VI)a); }
#if FOURD_X86 && FOURD_WIDTH == 8
FOURD_INLINE VF select(VM mask, VF a, VF b) { return (VF)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)mask); }
FOURD_INLINE uint32_t bits(VM mask) { return uint32_t(_mm256_movemask_ps((__m256)mask)); }
FOURD_INLINE VF vmin(VF a, VF b) { return (VF)_mm256_min_ps((__m256)a, (__m256)b); }
FOURD_INLINE VF vmax(VF a, VF b) { return (VF)_mm256_max_ps((__m256)a, (__m256)b); }
FOURD_INLINE VF vsqrt(VF a) { return (VF)_mm256_sqrt_ps((__m256)a); }
#else
FOURD_INLINE VF select(VM mask, VF a, VF b) { return (VF)((mask & (VI)a) | (~mask & (VI)b)); }
#if FOURD_X86
FOURD_INLINE uint32_t bits(VM mask) { return uint32_t(_mm_movemask_ps((__m128)mask)); }
FOURD_INLINE VF vmin(VF a, VF b) { return (VF)_mm_min_ps((__m128)a, (__m128)b); }
FOURD_INLINE VF vmax(VF a, VF b) { return (VF)_mm_max_ps((__m128)a, (__m128)b); }
FOURD_INLINE VF vsqrt(VF a) { return (VF)_mm_sqrt_ps((__m128)a); }
#else
FOURD_INLINE uint32_t bits(VM mask) {
  uint32_t r = 0;
  for (int i = 0; i < W; i++) r |= (mask[i] ? 1u : 0u) << i;
  return r;
}
FOURD_INLINE VF vmin(VF a, VF b) { return select(a < b, a, b); }
FOURD_INLINE VF vmax(VF a, VF b) { return select(a > b, a, b); }
FOURD_INLINE VF vsqrt(VF a) {
  VF r;
  for (int i = 0; i < W; i++) r[i] = __builtin_sqrtf(a[i]);
  return r;
}
#endif
#endif
#endif
FOURD_INLINE VI one_if(VM mask) { return (VI)keep(mask, (VF)(VI{} + 1)); }  // 1 where set, else 0

// Vectors of four, whatever the width: for shuffles.
typedef float V4 __attribute__((vector_size(16)));
typedef int32_t V4I __attribute__((vector_size(16)));
typedef uint8_t V4B __attribute__((vector_size(4)));
FOURD_INLINE V4 load4(const float* p) {
  V4 r;
  __builtin_memcpy(&r, p, sizeof(r));
  return r;
}

// Nearest integer for |x| < 2^22: adding 1.5 * 2^23 pushes the fraction out of the mantissa.
constexpr float kRound = 12582912.0f;
FOURD_INLINE VF vround(VF x) { return (x + kRound) - kRound; }
FOURD_INLINE VF vfloor(VF x) {
  const VF r = vround(x);
  return r - keep(less(x, r), broadcast(1.0f));
}
FOURD_INLINE VF vceil(VF x) { return -vfloor(-x); }

// 2^x for -126 <= x <= 127 (anything else gives garbage, never a trap). Relative error < 2.5e-7: a degree-5 polynomial fitted
// to 2^f on [-1/2, 1/2] for the smallest largest relative error (7.5e-8) plus the rounding of its evaluation.
FOURD_INLINE VF vexp2(VF x) {
  const VF shifted = x + kRound;
  const VF f = x - (shifted - kRound);
  VF p = f * 0.001327647129073739f + 0.009675540961325169f;
  p = p * f + 0.05550713092088699f;
  p = p * f + 0.24022120237350464f;
  p = p * f + 0.6931469440460205f;
  p = p * f + 1.0000001192092896f;
  return (VF)((VU)p + ((VU)shifted << 23));
}

// log2(x) for finite x > 0 (normal numbers). With x = 2^n m, m in [sqrt(1/2), sqrt(2)) and s = (m-1)/(m+1):
// ln m = 2 (s + s^3/3 + s^5/5 + ...); |s| <= 0.1716, so the terms after s^9 are below 4e-10.
FOURD_INLINE VF vlog2(VF x) {
  const VI offset = ((VI)x - 0x3f3504f3) >> 23;  // 0x3f3504f3 = sqrt(1/2)
  const VF m = (VF)((VU)x - ((VU)offset << 23));
  const VF n = __builtin_convertvector(offset, VF);
  const VF s = (m - 1.0f) / (m + 1.0f);
  const VF q = s * s;
  VF p = q * (1.0f / 9.0f) + (1.0f / 7.0f);
  p = p * q + (1.0f / 5.0f);
  p = p * q + (1.0f / 3.0f);
  p = p * q + 1.0f;
  return n + s * p * 2.8853900817779268f;  // 2 / ln 2
}
