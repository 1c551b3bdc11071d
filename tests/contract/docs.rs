//! Tables in the documentation that are kept by hand say what the code says.

use std::fs;

use clap::Args;
use tidemark::config::ConfigArgs;
use tidemark::http::error::code;
use tidemark::metrics;

use super::released::root;

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

#[test]
fn the_error_table_is_complete_and_true() {
    let page = page("api.md");
    for code in code::ALL {
        let row = format!("| `{}` | {} | {} |", code.name, code.status.as_u16(), code.message);
        assert!(page.contains(&row), "docs/api.md lacks: {row}");
    }
}

#[test]
fn every_metric_is_documented() {
    let page = page("operations.md");
    for metric in metrics::ALL {
        let name = metric.name;
        assert!(page.contains(&format!("| `{name}` |")), "docs/operations.md lacks {name}");
    }
}

/// The table under "Metrics" speaks of nothing that is not there.
#[test]
fn every_documented_metric_exists() {
    let page = page("operations.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Metrics\n")).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let documented: Vec<&str> = rows.map(|(name, _)| name).collect();
    let known: Vec<&str> = metrics::ALL.iter().map(|metric| metric.name).collect();
    for name in &documented {
        assert!(known.contains(name), "docs/operations.md tells of {name}");
    }
    assert_eq!(documented.len(), known.len(), "a metric is told of twice");
}

/// Each condition of readiness has a line that says what to do, and the documents know it.
#[test]
fn every_trouble_is_in_the_runbook() {
    let page = page("operations.md");
    for (name, wrong, _) in tidemark::watch::ACTIONS {
        if !["started", "projectors"].contains(&name) {
            assert!(page.contains(wrong), "the runbook lacks: {wrong}");
        }
        if name != "started" {
            assert!(page.contains(&format!("| `{name}` | ")), "the checks lack {name}");
        }
    }
}

#[test]
fn every_setting_is_documented() {
    let page = page("operations.md");
    let command = ConfigArgs::augment_args(clap::Command::new("tidemark"));
    for setting in command.get_arguments() {
        let variable = setting.get_env().unwrap().to_str().unwrap();
        let flag = setting.get_long().unwrap();
        let row = format!("| `{variable}` | `--{flag}` |");
        assert!(page.contains(&row), "docs/operations.md lacks: {row}");
    }
}

/// Links between pages lead somewhere.
#[test]
fn relative_links_have_targets() {
    for name in
        ["architecture.md", "privacy.md", "adding.md", "operations.md", "api.md", "replay.md"]
    {
        for link in page(name).split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            assert!(root().join("docs").join(target).exists(), "{name}: {target}");
        }
    }
}

/// Files that the pages for developers send people to are there.
#[test]
fn named_paths_exist() {
    let parts = ["aggregates/", "projections/", "src/", "tests/", "docs/", "event-schemas/"];
    for name in ["adding.md", "architecture.md"] {
        let page = page(name);
        let quoted = page.split('`').skip(1).step_by(2);
        let paths = quoted
            .filter(|text| parts.iter().any(|part| text.starts_with(part)))
            .filter(|text| !text.contains(['<', '{', '*', ' ']));
        let mut count = 0;
        for path in paths {
            assert!(root().join(path).exists(), "{name} names {path}, which is not there");
            count += 1;
        }
        assert!(count > 5, "{name} names files");
    }
}
