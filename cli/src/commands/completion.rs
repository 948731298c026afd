//! `kindnetctl completion`

use anyhow::Result;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use kindnet_ui::emit_text;

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kindnetctl completion bash > /etc/bash_completion.d/kindnetctl
  source <(kindnetctl completion zsh)
  kindnetctl completion fish > ~/.config/fish/completions/kindnetctl.fish")]
pub struct CompletionArgs {
    /// Shell
    #[arg(value_enum)]
    pub shell: Shell,
}

pub fn run(args: &CompletionArgs) -> Result<()> {
    let mut script = Vec::new();
    let mut command = crate::args::Args::command();
    clap_complete::generate(args.shell, &mut command, "kindnetctl", &mut script);
    emit_text(&String::from_utf8_lossy(&script))
}
