//! Rules about settings: the reference page lists those of the code.
//!
//! With `TIDEWIRE_UPDATE` set, the page is written instead of compared.

use tidewire_app::config::settings::{PROPERTIES, SETTINGS, Setting, variable_of};
use tidewire_app::role::Role;

use crate::check;
use crate::source::{read, root};

const PAGE: &str = "docs/settings.md";

const HEAD: &str = "# Settings

Generated from `pipeline/app/src/config/settings/table.rs`: `TIDEWIRE_UPDATE=1 cargo test --release
--test tidy` writes it again. `tidewire settings` prints the same entries; with `--config FILE` and
the environment of a process it also prints what is given for each, from where, and what is wrong.

Each source overrides the ones before it:

1. the default,
2. a TOML file, named by `--config FILE` or `TIDEWIRE_CONFIG`,
3. the environment variable,
4. the flag.

```toml
log = \"kafka://127.0.0.1:9092\"

[topics]
partitions = 16

[kafka.properties]
\"security.protocol\" = \"SASL_SSL\"
\"sasl.username\" = \"tidewire\"
```

* A name in the table with a dot is a table and a key in the file: `gateway.ring_bytes` is
  `ring_bytes` in `[gateway]`.
* Sizes have the unit `KiB`, `MiB` or `GiB`; a number without a unit is bytes.
* Unknown names and invalid values are refused at the start, all of them in one message (exit code
  2). Values of secrets are never printed.
* Variables that Kubernetes adds for a service called `tidewire` or `tidewire-…`, and Docker for
  such a link, are no settings and are ignored: `TIDEWIRE_SERVICE_HOST`,
  `TIDEWIRE_PORT=tcp://10.0.0.1:8080`, `TIDEWIRE_GATEWAY_PORT_8080_TCP_ADDR`, `TIDEWIRE_NAME`,
  `TIDEWIRE_ENV_…`. Name and value both have to look like that.
* `RUST_LOG` sets `log_filter` too: it overrides the file, and `TIDEWIRE_LOG_FILTER` overrides it.
  Commands other than the roles log warnings and errors only, unless `--log-filter`,
  `TIDEWIRE_LOG_FILTER` or `RUST_LOG` says otherwise; `log_filter` in the file is for roles only.

";

fn page() -> String {
    let mut out = HEAD.to_owned();
    out += "| name | variable | flag | default | valid | roles | meaning |\n";
    out += "|---|---|---|---|---|---|---|\n";
    for setting in SETTINGS {
        out += &row(setting, &variable_of(setting.key));
    }
    out + &row(&PROPERTIES, &format!("{}_NAME", variable_of(PROPERTIES.key)))
}

fn row(setting: &Setting, variable: &str) -> String {
    let code = |text: &str| if text.is_empty() { "–".into() } else { format!("`{text}`") };
    let accepts = if setting.accepts.is_empty() { "any text" } else { setting.accepts };
    let cells = [
        code(setting.key),
        code(variable),
        code(setting.flag.unwrap_or_default()),
        code(setting.default),
        accepts.to_owned(),
        roles(setting.roles),
        setting.meaning.to_owned(),
    ];
    format!("| {} |\n", cells.join(" | "))
}

fn roles(roles: &[Role]) -> String {
    if roles.len() == 4 {
        return "all".to_owned();
    }
    roles.iter().map(|role| format!("`{}`", role.verb())).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_settings_page_matches_the_code() {
    if std::env::var_os("TIDEWIRE_UPDATE").is_some() {
        std::fs::write(root().join(PAGE), page()).expect("the page can be written");
    }
    let committed = read(PAGE).unwrap_or_default();
    assert_eq!(committed, page(), "run it once with TIDEWIRE_UPDATE=1 and read what changed");
}

#[test]
fn every_setting_that_the_documents_name_exists() {
    let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    let groups =
        ["topics.", "kafka.", "registry.", "admit.", "derive.", "gateway.", "demo.", "catalogue."];
    let mut all = Vec::new();
    for path in [
        "docs/operations.md",
        "docs/kafka.md",
        "docs/quickstart.md",
        "docs/your-own-event-type.md",
        "deploy/RUNBOOK.md",
    ] {
        let text = read(path).expect("documents are text");
        for span in text.split('`').skip(1).step_by(2) {
            let key = span.split([' ', '=']).next().unwrap_or_default();
            let is_key = key.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '.' | '_'));
            let of_ours = groups.iter().any(|group| key.starts_with(group));
            let property = key.starts_with(PROPERTIES.key);
            if is_key && of_ours && !property && !known.contains(&key) {
                all.push(format!("{path}: no setting {key}"));
            }
        }
    }
    check(all);
}
