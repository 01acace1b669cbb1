// Includes the file FOURD_KERNELS_FILE once for each instruction set, as the namespaces plain (any CPU), avx2 and avx512 (x86
// only; ask instruction_set() of common.h which one may run). The including file stands inside its own namespace and defines
//     #define FOURD_KERNELS_FILE "NAME_kernels.inl"
// beforehand. So no include guard here.

#define FOURD_WIDTH 4
namespace plain {
#include "simd.inl"
#include FOURD_KERNELS_FILE
}  // namespace plain
#undef FOURD_INLINE
#undef FOURD_WIDTH

#if FOURD_X86
FOURD_BEGIN_TARGET(FOURD_AVX2)
#define FOURD_WIDTH 8
namespace avx2 {
#include "simd.inl"
#include FOURD_KERNELS_FILE
}  // namespace avx2
#undef FOURD_INLINE
#undef FOURD_WIDTH
FOURD_END_TARGET

FOURD_BEGIN_TARGET(FOURD_AVX512)
#define FOURD_WIDTH 16
namespace avx512 {
#include "simd.inl"
#include FOURD_KERNELS_FILE
}  // namespace avx512
#undef FOURD_INLINE
#undef FOURD_WIDTH
FOURD_END_TARGET
#endif

#undef FOURD_KERNELS_FILE
