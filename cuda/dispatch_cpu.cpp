// Which instruction set the machine has, and the names that `fourd doctor` prints.
#include "common.h"

namespace fourd {
namespace {

int detect() {
#if FOURD_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
    return kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kAvx2;
#endif
  return kPlain;
}

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
