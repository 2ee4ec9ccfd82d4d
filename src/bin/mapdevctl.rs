//! The administrator's tool; everything is in [`mapdev::cli`].

fn main() -> std::process::ExitCode {
    mapdev::cli::main()
}
