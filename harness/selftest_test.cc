#include "harness/selftest.h"

#include <gtest/gtest.h>
TEST(Placeholder, X) {}
