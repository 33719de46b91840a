// Ctrl-C: the first ends the work in order, a second one ends the process at once.
#pragma once

namespace assay::cli {

void watch_interrupts();  // SIGINT and SIGTERM, from now on
bool interrupted();

}  // namespace assay::cli
