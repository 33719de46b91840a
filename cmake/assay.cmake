# The ways to add code: assay_library, assay_test, assay_kernel, and for parsers assay_fuzz. Every target links
# assay_options.

# One INTERFACE target carries every compile option of the project.
add_library(assay_options INTERFACE)
target_compile_features(assay_options INTERFACE cxx_std_20)
target_include_directories(assay_options INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR}/generated)
# Contraction would let the compiler fuse a*b+c where it likes: the bits would then depend on flags and
# instruction set. Kernels write their FMAs out.
target_compile_options(assay_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wno-missing-field-initializers -ffp-contract=off>)
# g++ 12 at -O3 warns about std::string's own operator+ (GCC bug 105651).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(assay_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
if(ASSAY_WERROR)
  target_compile_options(assay_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(ASSAY_SANITIZE)
  target_compile_options(assay_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${ASSAY_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all>)
  target_link_options(assay_options INTERFACE -fsanitize=${ASSAY_SANITIZE})
endif()
if(ASSAY_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "ASSAY_FUZZ needs clang (libFuzzer), found ${CMAKE_CXX_COMPILER_ID}. "
                        "Use: cmake --preset fuzz")
  endif()
  # Every target is instrumented; only a fuzz target links libFuzzer's main.
  set(fuzz_flags -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_compile_options(assay_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${fuzz_flags}>)
  target_link_options(assay_options INTERFACE -fsanitize=address,undefined)
endif()
if(ASSAY_COVERAGE)
  target_compile_options(assay_options INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(assay_options INTERFACE --coverage)
endif()

set(ASSAY_LIGHT $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-O1>)

# assay_library(NAME SOURCES a.cc ... [DEPS target ...] [LIGHT])
# LIGHT: it reads, asks and prints, and computes nothing that takes time: a third less to compile.
function(assay_library name)
  cmake_parse_arguments(ARG "LIGHT" "" "SOURCES;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC assay_options ${ARG_DEPS})
  if(ARG_LIGHT)
    target_compile_options(${name} PRIVATE ${ASSAY_LIGHT})
  endif()
endfunction()

# assay_test(NAME SOURCES a_test.cc ... [DEPS target ...] [LABEL unit|slow|longest|gpu] [TIMEOUT s] [FILTER gtest filter] [ALONE])
# One executable, one ctest entry. "unit" tests together stay under a minute. ALONE: no other test beside it.
function(assay_test name)
  cmake_parse_arguments(ARG "ALONE" "LABEL;TIMEOUT;FILTER" "SOURCES;DEPS" ${ARGN})
  if(NOT BUILD_TESTING)
    return()
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE assay_options ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE ASSAY_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_compile_options(${name} PRIVATE ${ASSAY_LIGHT}) # what is tested is optimised, the test itself need not be
  set(alone "")
  if(ARG_ALONE)
    set(alone ALONE)
  endif()
  assay_test_entry(${name} OF ${name} LABEL "${ARG_LABEL}" TIMEOUT "${ARG_TIMEOUT}" FILTER "${ARG_FILTER}" ${alone})
endfunction()

# assay_test_entry(NAME OF test-executable [LABEL ...] [TIMEOUT s] [FILTER ...] [ALONE] [ENVIRONMENT A=b ...])
# A ctest entry of an executable that assay_test made: other tests of it, or the same ones about something else.
function(assay_test_entry name)
  cmake_parse_arguments(ARG "ALONE" "OF;LABEL;TIMEOUT;FILTER" "ENVIRONMENT" ${ARGN})
  if(NOT BUILD_TESTING)
    return()
  endif()
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(ARG_FILTER)
    add_test(NAME ${name} COMMAND ${ARG_OF} --gtest_filter=${ARG_FILTER})
  else()
    add_test(NAME ${name} COMMAND ${ARG_OF})
  endif()
  if(ASSAY_SANITIZE)  # instrumented code takes several times as long
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 5")
  endif()
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT} ENVIRONMENT "${ARG_ENVIRONMENT}")
  if(ARG_ALONE)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL TRUE)
  endif()
  if(ARG_LABEL STREQUAL "gpu")  # a test that needs a device shows nothing without one
    set_tests_properties(${name} PROPERTIES SKIP_REGULAR_EXPRESSION "no CUDA device here|asks for [0-9]+ GPUs")
  endif()
endfunction()

# assay_kernel(NAME SOURCES a_reference.cc a_cpu.cc ... [CUDA a_cuda.cu ...] [DEPS target ...])
# Kernels are optimised even in debug builds (a -O0 kernel makes every test useless), and their CUDA sources are
# compiled where nvcc is.
function(assay_kernel name)
  cmake_parse_arguments(ARG "" "" "SOURCES;CUDA;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC assay_options ${ARG_DEPS})
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-O3>)
  if(ASSAY_HAVE_CUDA AND ARG_CUDA)
    target_sources(${name} PRIVATE ${ARG_CUDA})
    target_compile_options(${name} PRIVATE
      $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20 --expt-relaxed-constexpr -lineinfo>)
    target_link_libraries(${name} PUBLIC CUDA::cudart_static)
  endif()
endfunction()

# assay_fuzz(NAME SOURCES a_fuzz.cc [DEPS target ...] [CORPUS file-or-folder ...])
# A libFuzzer target, built only with ASSAY_FUZZ. CORPUS names seeds (files or folders, from the source directory)
# that ci/check-fuzz starts from; it reads them from NAME.corpus beside the executable.
function(assay_fuzz name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;CORPUS" ${ARGN})
  if(NOT ASSAY_FUZZ)
    return()
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE assay_options ${ARG_DEPS})
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  list(TRANSFORM ARG_CORPUS PREPEND "${PROJECT_SOURCE_DIR}/")
  list(JOIN ARG_CORPUS "\n" lines)
  file(GENERATE OUTPUT $<TARGET_FILE_DIR:${name}>/${name}.corpus CONTENT "${lines}\n")
endfunction()
