//! The program `presplit`: reads its flags and does what they say.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
