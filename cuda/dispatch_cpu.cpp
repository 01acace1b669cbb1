// Which instruction set the machine has, and the names that `fourd doctor` prints.
#include "common.h"

#if FOURD_X86
#include <cpuid.h>
#endif

namespace fourd {
namespace {

#if FOURD_X86
// Bits of `leaf`: eax, ebx, ecx, edx; all zero where the CPU has no such leaf.
struct Leaf {
  unsigned a = 0, b = 0, c = 0, d = 0;
  explicit Leaf(unsigned leaf) { __get_cpuid_count(leaf, 0, &a, &b, &c, &d); }
};

// Register sets that the operating system saves: xgetbv, written out because the intrinsic needs a compiler flag.
unsigned saved_registers() {
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

// Not __builtin_cpu_supports: its table lives in the compiler's runtime, which not every linker finds for a shared library.
int detect() {
  const Leaf basic(1), extended(7);
  const bool xsave = basic.c & (1u << 27), fma = basic.c & (1u << 12), avx2 = extended.b & (1u << 5);
  if (!xsave || !fma || !avx2) return kPlain;
  const unsigned saved = saved_registers();
  if ((saved & 0x6) != 0x6) return kPlain;  // xmm and ymm
  const unsigned needed = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // F, DQ, BW, VL
  if ((extended.b & needed) != needed || (saved & 0xe0) != 0xe0) return kAvx2;  // masks and zmm
  return kAvx512;
}
#else
int detect() { return kPlain; }
#endif

int g_limit = kAvx512;

}  // namespace

int instruction_set() {
  static const int found = detect();
  return found < g_limit ? found : g_limit;
}

}  // namespace fourd

#ifndef FOURD_SOURCE_HASH
#define FOURD_SOURCE_HASH "unknown"
#endif

// Hash of the sources this library was built from: the loader compares it, so an old build is never used with new sources.
FOURD_EXPORT const char* fourd_source_hash() { return FOURD_SOURCE_HASH; }

FOURD_EXPORT const char* fourd_instruction_set() {
  switch (fourd::instruction_set()) {
    case fourd::kAvx512: return "avx512";
    case fourd::kAvx2: return "avx2";
    default: return "plain";
  }
}

// Use at most this set (0 plain, 1 avx2, 2 avx512): tests run every path of the binary on one machine.
FOURD_EXPORT void fourd_limit_instruction_set(int limit) { fourd::g_limit = limit; }
