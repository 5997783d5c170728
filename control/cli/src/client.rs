//! Finding the coordinator: flag over environment over context.

use std::path::{Path, PathBuf};

use dunlin_api::{Client, ClientConfig};

use crate::args::Global;
use crate::context;
use crate::error::CommandError;

/// Returns a client of the coordinator that is meant; nothing is sent yet.
pub(crate) fn connect(global: &Global) -> Result<Client, CommandError> {
    client(find(global, context::default_path())?)
}

/// Returns a client of the coordinator at `url`, which is known by a certificate (PEM) and asked with a token.
pub(crate) fn with(url: &str, token: String, authority_pem: String) -> Result<Client, CommandError> {
    client(ClientConfig { url: url.to_owned(), token, authority_pem })
}

fn client(config: ClientConfig) -> Result<Client, CommandError> {
    Client::new(config).map_err(|error| {
        CommandError::usage("cannot speak to the coordinator")
            .caused_by(&error)
            .help("`--coordinator`, `--token-file` and `--ca-file` say which; `dunlin up` writes all three")
    })
}

fn find(global: &Global, default_context: Option<PathBuf>) -> Result<ClientConfig, CommandError> {
    let context = match (&global.context, &default_context) {
        (Some(named), _) => {
            let path = context::meant(named, default_context.as_deref());
            Some(context::read(&path)?.ok_or_else(|| {
                CommandError::failed(format!("cannot read the context {}", path.display()))
                    .because("there is no such file")
                    .help("`dunlin context list` shows those with names; `dunlin login` and `dunlin up` make one")
            })?)
        }
        (None, Some(path)) => context::read(path)?,
        (None, None) => None,
    };
    let url = global.coordinator.clone().or_else(|| context.as_ref().map(|context| context.url.clone()));
    let Some(url) = url else {
        return Err(CommandError::unreachable("no coordinator is known")
            .help("start one on this machine with `dunlin up`, or name one with `--coordinator URL`"));
    };
    let token_file = global.token_file.as_ref().or(context.as_ref().map(|context| &context.token_file));
    let Some(token_file) = token_file else {
        return Err(CommandError::usage(format!("there is no token for {url}"))
            .help("say where it is with `--token-file FILE`"));
    };
    let token = read(token_file, "token", "--token-file")?.trim().to_owned();
    let ca_file = global.ca_file.as_ref().or(context.as_ref().map(|context| &context.authority_file));
    let authority_pem = match ca_file {
        Some(path) => read(path, "certificate of the fleet's authority", "--ca-file")?,
        None if url.starts_with("http://") => String::new(),
        None => {
            return Err(CommandError::usage(format!("there is no certificate to know {url} by"))
                .help("say where that of the fleet's authority is with `--ca-file FILE`"));
        }
    };
    Ok(ClientConfig { url, token, authority_pem })
}

/// Returns the text of a file that an option names.
pub(crate) fn read(path: &Path, what: &str, flag: &str) -> Result<String, CommandError> {
    context::read_text(path).map_err(|error| {
        CommandError::failed(format!("cannot read the {what} in {}", path.display()))
            .caused_by(&error)
            .help(format!("`{flag} FILE` names another; `dunlin up` writes both for the fleet it starts"))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use expect_test::expect;

    use super::*;

    #[test]
    fn a_flag_goes_before_the_context() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("context.toml");
        let text = "url = \"https://a:1\"\ntoken_file = \"token\"\nauthority_file = \"ca.pem\"\n";
        fs::write(&path, text).unwrap();
        fs::write(folder.path().join("token"), "secret\n").unwrap();
        fs::write(folder.path().join("ca.pem"), "certificate").unwrap();
        let config = find(&Global::default(), Some(path.clone())).unwrap();
        assert_eq!((config.url.as_str(), config.token.as_str()), ("https://a:1", "secret"));
        let other = folder.path().join("other");
        fs::write(&other, "another").unwrap();
        let global = Global {
            coordinator: Some("https://b:2".to_owned()),
            token_file: Some(other),
            context: Some(path),
            ..Global::default()
        };
        let config = find(&global, None).unwrap();
        assert_eq!((config.url.as_str(), config.token.as_str()), ("https://b:2", "another"));
        assert_eq!(config.authority_pem, "certificate");
    }

    #[test]
    fn what_is_missing_is_said_with_its_help() {
        let mut lines = String::new();
        let mut global = Global::default();
        lines += &find(&global, None).unwrap_err().to_string();
        global.coordinator = Some("https://a:1".to_owned());
        lines += &find(&global, None).unwrap_err().to_string();
        global.token_file = Some("/dev/null".into());
        lines += &find(&global, None).unwrap_err().to_string();
        global.ca_file = Some("/nonexistent/ca.pem".into());
        lines += &find(&global, None).unwrap_err().to_string();
        global.ca_file = Some("/dev/null".into());
        lines += &connect(&global).unwrap_err().to_string();
        global.context = Some("/nonexistent/context.toml".into());
        lines += &find(&global, None).unwrap_err().to_string();
        expect![[r#"
            error: no coordinator is known
              help: start one on this machine with `dunlin up`, or name one with `--coordinator URL`
            error: there is no token for https://a:1
              help: say where it is with `--token-file FILE`
            error: there is no certificate to know https://a:1 by
              help: say where that of the fleet's authority is with `--ca-file FILE`
            error: cannot read the certificate of the fleet's authority in /nonexistent/ca.pem
              cause: No such file or directory (os error 2)
              help: `--ca-file FILE` names another; `dunlin up` writes both for the fleet it starts
            error: cannot speak to the coordinator
              cause: the fleet's authority is not a certificate in PEM form
              help: `--coordinator`, `--token-file` and `--ca-file` say which; `dunlin up` writes all three
            error: cannot read the context /nonexistent/context.toml
              cause: there is no such file
              help: `dunlin context list` shows those with names; `dunlin login` and `dunlin up` make one
        "#]]
        .assert_eq(&lines);
    }
}
