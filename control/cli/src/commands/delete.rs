//! `dunlin delete`: an app is stopped and forgotten.

use clap::Args;
use serde_json::json;

use crate::args::Global;
use crate::error::CommandError;
use crate::names;
use crate::output::Output;

/// Stop an app and forget it.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin delete shop --yes")]
pub(crate) struct DeleteArgs {
    /// `app` or `namespace/app`.
    pub(crate) app: String,
    /// Yes, it is meant.
    #[arg(long)]
    pub(crate) yes: bool,
}

pub(crate) async fn run(global: &Global, args: DeleteArgs, output: &Output) -> Result<(), CommandError> {
    let name = names::app(&args.app, global.namespace.as_ref())?;
    if !args.yes {
        return Err(CommandError::usage(format!("`{name}` is not deleted"))
            .because("a deleted app cannot be brought back, nor can its revisions")
            .help(format!("`dunlin delete {name} --yes` does it; `dunlin stop {name}` only stops it")));
    }
    let client = crate::client::connect(global)?;
    client
        .delete_app(&name)
        .await
        .map_err(|error| CommandError::client(format!("cannot delete `{name}`"), &error))?;
    output.result(&json!({ "app": name, "deleted": true }), || format!("`{name}` is deleted\n"))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::args::Format;

    #[tokio::test]
    async fn nothing_is_deleted_by_accident() {
        let args = DeleteArgs { app: "shop".to_owned(), yes: false };
        let output = Output::new(Format::Table, true);
        let error = run(&Global::default(), args, &output).await.unwrap_err();
        assert_eq!(error.exit_code(), 2);
        expect![[r#"
            error: `default/shop` is not deleted
              cause: a deleted app cannot be brought back, nor can its revisions
              help: `dunlin delete default/shop --yes` does it; `dunlin stop default/shop` only stops it
        "#]]
        .assert_eq(&error.to_string());
    }
}
