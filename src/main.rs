//! The `flotilla` binary: everything it does is in `flotilla-runtime`.

use std::process::ExitCode;

/// Chosen by measurement of build time and of allocation-heavy paths: it needs
/// only a C compiler and builds in seconds. It asks for no huge pages: those doubled
/// what a replica holds and saved no CPU. Where a machine gives them to everybody,
/// `MIMALLOC_ALLOW_THP=0` is needed, too; the chart sets it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    flotilla_runtime::main()
}
