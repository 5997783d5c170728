//! `dunlin namespace`: what each namespace may have of the fleet, and what it has.

use std::path::Path;
use std::str::FromStr;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use dunlin_api::{Client, ClientError, NamespaceList, NamespaceStatus, code};
use dunlin_model::{Bytes, FuelRate, Name, NamespaceSpec, NewWants, Packing, SignerKey, SignerKeyError};

use crate::args::Global;
use crate::error::CommandError;
use crate::output::{Output, table};

/// Show and set what namespaces may have of the fleet.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin namespace set team-a --memory 4GiB --weight 3")]
pub(crate) struct NamespaceArgs {
    #[command(subcommand)]
    pub(crate) command: NamespaceCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NamespaceCommand {
    List(ListArgs),
    Show(ShowArgs),
    Set(SetArgs),
}

/// Show all namespaces, what they have and what they may have.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin namespace list")]
pub(crate) struct ListArgs {}

/// Show what one namespace has and may have.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin namespace show team-a")]
pub(crate) struct ShowArgs {
    /// Which.
    pub(crate) name: Name,
}

/// Say what a namespace may have; what is not named here stays as it is.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin namespace set team-a --memory 4GiB --items none --weight 3")]
#[command(group = ArgGroup::new("what").required(true).multiple(true)
    .args(["memory", "fuel_rate", "allocations", "items", "weight", "packing", "signer", "new_wants"]))]
pub(crate) struct SetArgs {
    /// Which; one that nobody has named before is new.
    pub(crate) name: Name,
    /// Memory that all its allocations may reserve together, or `none` for any.
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<Limit<Bytes>>,
    /// Computing that all its allocations may reserve together, or `none` for any.
    #[arg(long, value_name = "RATE")]
    pub(crate) fuel_rate: Option<Limit<FuelRate>>,
    /// How many allocations it may have, or `none` for any number.
    #[arg(long, value_name = "N")]
    pub(crate) allocations: Option<Limit<u32>>,
    /// How many items of its runs may be open at a time, or `none` for any number.
    #[arg(long, value_name = "N")]
    pub(crate) items: Option<Limit<u32>>,
    /// Its share among the namespaces when there is not room for all, from 1 to 1000.
    #[arg(long, value_name = "N")]
    pub(crate) weight: Option<u32>,
    /// How its allocations lie on the nodes.
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) packing: Option<PackingArg>,
    /// Who may sign what runs there, in place of those before: a public key of minisign, its `.pub` file, or `none` for
    /// components that nobody has to sign; may be repeated, and the last `none` forgets those before it.
    #[arg(long, value_name = "KEY", value_parser = signer)]
    pub(crate) signer: Vec<Limit<SignerKey>>,
    /// What becomes of a deploy by which a workload may do or have more than before.
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) new_wants: Option<NewWantsArg>,
}

/// A limit, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit<T>(Option<T>);

/// Reads the key that is named, or that is in the file that is named.
fn signer(text: &str) -> Result<Limit<SignerKey>, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    let key = text.parse::<SignerKey>().or_else(|not_a_key| {
        let file = crate::context::read_text(Path::new(text))
            .map_err(|error| format!("{not_a_key}, and no file: {error}"))?;
        // The first line is a comment.
        let line = file.lines().nth(1).unwrap_or_default().trim();
        line.parse().map_err(|error: SignerKeyError| format!("in the file {text}: {error}"))
    })?;
    Ok(Limit(Some(key)))
}

impl<T: FromStr> FromStr for Limit<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(|value| Self(Some(value))) }
    }
}

/// How allocations lie on the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PackingArg {
    /// On the emptiest nodes first.
    Spread,
    /// On the fullest nodes first.
    Pack,
}

/// What becomes of a deploy that newly wants something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NewWantsArg {
    /// It is carried out, and says what was new.
    Allow,
    /// It is refused unless it says `--accept`.
    Ask,
}

pub(crate) async fn run(global: &Global, args: NamespaceArgs, output: &Output) -> Result<(), CommandError> {
    let client = crate::client::connect(global)?;
    match args.command {
        NamespaceCommand::List(ListArgs {}) => {
            let list = client.namespaces().await;
            let list = list.map_err(|error| CommandError::client("cannot list the namespaces", &error))?;
            output.result(&list, || all(&list))
        }
        NamespaceCommand::Show(ShowArgs { name }) => {
            let status = client.namespace(&name).await.map_err(|error| {
                let what = format!("cannot show namespace `{name}`");
                if is_unknown(&error) { unknown(&what, &name) } else { CommandError::client(what, &error) }
            })?;
            output.result(&status, || one(&status))
        }
        NamespaceCommand::Set(args) => {
            let what = || format!("cannot set what namespace `{}` may have", args.name);
            let (wanted, status) =
                set(&client, &args).await.map_err(|error| CommandError::client(what(), &error))?;
            if status.spec != wanted {
                return Err(CommandError::failed(what())
                    .because(
                        "something else is set now: the coordinator is of an earlier version and has left out what it does \
                         not know, or somebody else has set it meanwhile",
                    )
                    .help("`dunlin namespace show` shows what is set; upgrade the coordinator, or set it again"));
            }
            output.result(&status, || one(&status))
        }
    }
}

/// Returns what it wanted as well.
async fn set(client: &Client, args: &SetArgs) -> Result<(NamespaceSpec, NamespaceStatus), ClientError> {
    let before = match client.namespace(&args.name).await {
        Ok(status) => status.spec,
        // Of the others nobody has said anything, so they have what everybody has.
        Err(error) if is_unknown(&error) => NamespaceSpec::default(),
        Err(error) => return Err(error),
    };
    let wanted = changed(before, args);
    let status = client.set_namespace(&args.name, &wanted).await?;
    Ok((wanted, status))
}

fn changed(mut spec: NamespaceSpec, args: &SetArgs) -> NamespaceSpec {
    let SetArgs { name: _, memory, fuel_rate, allocations, items, weight, packing, signer, new_wants } = args;
    let quota = &mut spec.quota;
    quota.memory = memory.map_or(quota.memory, |limit| limit.0);
    quota.fuel_rate = fuel_rate.map_or(quota.fuel_rate, |limit| limit.0);
    quota.allocations = allocations.map_or(quota.allocations, |limit| limit.0);
    quota.items = items.map_or(quota.items, |limit| limit.0);
    spec.weight = weight.unwrap_or(spec.weight);
    spec.packing = match packing {
        Some(PackingArg::Spread) => Packing::Spread,
        Some(PackingArg::Pack) => Packing::Pack,
        None => spec.packing,
    };
    spec.new_wants = match new_wants {
        Some(NewWantsArg::Allow) => NewWants::Allow,
        Some(NewWantsArg::Ask) => NewWants::Ask,
        None => spec.new_wants,
    };
    if !signer.is_empty() {
        spec.signers.clear();
        for signer in signer {
            match &signer.0 {
                Some(key) => drop(spec.signers.insert(key.clone())),
                None => spec.signers.clear(),
            }
        }
    }
    spec
}

fn is_unknown(error: &ClientError) -> bool {
    error.problem().is_some_and(|problem| problem.code == code::NOT_FOUND)
}

fn unknown(what: &str, name: &Name) -> CommandError {
    CommandError::failed(what)
        .because(format!("nobody has said anything of `{name}`, and it has no app"))
        .help("`dunlin namespace list` shows those that are known; `dunlin namespace set` or a deploy makes one")
}

const fn packing(packing: Packing) -> &'static str {
    match packing {
        Packing::Spread => "spread",
        Packing::Pack => "pack",
    }
}

fn limit<T: ToString>(limit: Option<T>) -> String {
    limit.map_or_else(|| "any".to_owned(), |limit| limit.to_string())
}

fn one(status: &NamespaceStatus) -> String {
    let NamespaceSpec { quota, weight, packing: how, signers, new_wants } = &status.spec;
    let rows = [
        ["memory", &status.reserved.memory.to_string(), &limit(quota.memory)],
        ["fuel rate", &status.reserved.fuel_rate.to_string(), &limit(quota.fuel_rate)],
        ["allocations", &status.allocations.to_string(), &limit(quota.allocations)],
        ["open items", &status.open_items.to_string(), &limit(quota.items)],
    ];
    let rows = rows.map(|row| row.map(str::to_owned).to_vec()).to_vec();
    let quotas = table(&["OF", "HAS", "MAY HAVE"], rows);
    let mut text =
        format!("namespace `{}`: weight {weight}, packing {}\n{quotas}\n", status.namespace, packing(*how));
    if !signers.is_empty() {
        text.push_str("only components that are signed with one of these may be deployed:\n");
        signers.iter().for_each(|key| text.push_str(&format!("  {key}\n")));
    }
    if *new_wants == NewWants::Ask {
        text.push_str("what newly wants something is deployed with `--accept` alone\n");
    }
    text
}

fn all(list: &NamespaceList) -> String {
    if list.namespaces.is_empty() {
        return "no namespaces yet; a deploy or `dunlin namespace set` makes one\n".to_owned();
    }
    let header = [
        "NAMESPACE",
        "WEIGHT",
        "PACKING",
        "MEMORY",
        "OF",
        "FUEL RATE",
        "OF",
        "ALLOCATIONS",
        "OF",
        "OPEN ITEMS",
        "OF",
    ];
    table(&header, list.namespaces.iter().map(row).collect())
}

fn row(status: &NamespaceStatus) -> Vec<String> {
    let NamespaceSpec { quota, weight, packing: how, signers: _, new_wants: _ } = &status.spec;
    vec![
        status.namespace.to_string(),
        weight.to_string(),
        packing(*how).to_owned(),
        status.reserved.memory.to_string(),
        limit(quota.memory),
        status.reserved.fuel_rate.to_string(),
        limit(quota.fuel_rate),
        status.allocations.to_string(),
        limit(quota.allocations),
        status.open_items.to_string(),
        limit(quota.items),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dunlin_model::{Quota, Resources};
    use expect_test::expect;

    use super::*;

    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    fn status(spec: NamespaceSpec) -> NamespaceStatus {
        NamespaceStatus {
            namespace: "team-a".parse().unwrap(),
            spec,
            reserved: Resources { memory: Bytes(96 << 20), fuel_rate: FuelRate(30_000_000) },
            allocations: 3,
            open_items: 0,
        }
    }

    fn nothing() -> SetArgs {
        SetArgs {
            name: "team-a".parse().unwrap(),
            memory: None,
            fuel_rate: None,
            allocations: None,
            items: None,
            weight: None,
            packing: None,
            signer: Vec::new(),
            new_wants: None,
        }
    }

    #[test]
    fn only_what_is_named_changes_and_none_takes_a_limit_away() {
        let quota = Quota { memory: Some(Bytes(1)), items: Some(7), ..Quota::default() };
        let before = NamespaceSpec { quota, weight: 3, packing: Packing::Pack, ..NamespaceSpec::default() };
        assert_eq!(changed(before.clone(), &nothing()), before);
        let args = SetArgs {
            memory: Some("none".parse().unwrap()),
            fuel_rate: Some("2G/s".parse().unwrap()),
            packing: Some(PackingArg::Spread),
            new_wants: Some(NewWantsArg::Ask),
            ..nothing()
        };
        let quota = Quota { fuel_rate: Some(FuelRate(2_000_000_000)), items: Some(7), ..Quota::default() };
        let after =
            NamespaceSpec { quota, packing: Packing::Spread, new_wants: NewWants::Ask, ..before.clone() };
        assert_eq!(changed(before, &args), after);
        let key: SignerKey = KEY.parse().unwrap();
        let args = SetArgs { signer: vec![signer(KEY).unwrap()], ..nothing() };
        let signed = changed(after.clone(), &args);
        assert_eq!(signed.signers, BTreeSet::from([key]));
        let args = SetArgs { signer: vec![signer("none").unwrap()], ..nothing() };
        assert_eq!(changed(signed, &args), after);
    }

    #[test]
    fn a_signer_is_a_key_or_the_file_that_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("release.pub");
        std::fs::write(&file, format!("untrusted comment: minisign public key\n{KEY}\n")).unwrap();
        assert_eq!(signer(file.to_str().unwrap()), signer(KEY));
        std::fs::write(&file, "nothing\n").unwrap();
        let told = signer(file.to_str().unwrap()).unwrap_err();
        assert!(told.contains("`` is no public key of minisign"), "{told}");
        let told = signer("no-such.pub").unwrap_err();
        assert!(
            told.contains("`no-such.pub` is no public key of minisign") && told.contains("No such file"),
            "{told}"
        );
    }

    #[test]
    fn what_a_namespace_has_stands_beside_what_it_may_have() {
        let quota = Quota { memory: Some(Bytes(4 << 30)), allocations: Some(100), ..Quota::default() };
        let signers = BTreeSet::from([KEY.parse().unwrap()]);
        let new_wants = NewWants::Ask;
        let set = status(NamespaceSpec { quota, weight: 3, packing: Packing::Pack, signers, new_wants });
        expect![[r#"
            namespace `team-a`: weight 3, packing pack
            OF           HAS    MAY HAVE
            memory       96MiB  4GiB
            fuel rate    30M/s  any
            allocations  3      100
            open items   0      any
            only components that are signed with one of these may be deployed:
              RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3
            what newly wants something is deployed with `--accept` alone
        "#]]
        .assert_eq(&one(&set));
        let list = NamespaceList { namespaces: vec![set, status(NamespaceSpec::default())] };
        expect![[r#"
            NAMESPACE  WEIGHT  PACKING  MEMORY  OF    FUEL RATE  OF   ALLOCATIONS  OF   OPEN ITEMS  OF
            team-a     3       pack     96MiB   4GiB  30M/s      any  3            100  0           any
            team-a     1       spread   96MiB   any   30M/s      any  3            any  0           any"#]]
        .assert_eq(&all(&list));
        expect![[r#"
            no namespaces yet; a deploy or `dunlin namespace set` makes one
        "#]]
        .assert_eq(&all(&NamespaceList::default()));
    }

    #[test]
    fn a_namespace_that_nobody_knows_is_told_with_help() {
        expect![[r#"
            error: cannot show namespace `team-b`
              cause: nobody has said anything of `team-b`, and it has no app
              help: `dunlin namespace list` shows those that are known; `dunlin namespace set` or a deploy makes one
        "#]]
        .assert_eq(&unknown("cannot show namespace `team-b`", &"team-b".parse().unwrap()).to_string());
    }
}
