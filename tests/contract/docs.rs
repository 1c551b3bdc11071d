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

/// Whoever upgrades reads of each migration since the first release what older servers make of it.
#[test]
fn every_migration_says_what_it_means_for_older_servers() {
    let page = page("operations.md");
    let files = fs::read_dir(root().join("migrations")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let newer = |name: &String| name.ends_with(".sql") && name.as_str() > "20261124";
    let mut count = 0;
    for name in names.filter(newer) {
        let row = format!("| `{}` | ", name.trim_end_matches(".sql"));
        assert!(page.contains(&row), "docs/operations.md lacks, under Upgrading: {row}");
        count += 1;
    }
    assert!(count > 0);
}

/// Each decision is in the list of them.
#[test]
fn every_decision_is_listed() {
    let list = page("adr/README.md");
    for name in markdown("docs/adr") {
        assert!(name.ends_with("README.md") || list.contains(&format!("]({name}) ")), "{name}");
    }
}

/// Names of the pages in a folder.
fn markdown(folder: &str) -> Vec<String> {
    let files = fs::read_dir(root().join(folder)).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".md")).collect()
}

/// Links between pages lead somewhere, down to the heading.
#[test]
fn relative_links_have_targets() {
    for folder in ["", "docs", "docs/adr"] {
        let here = root().join(folder);
        let names = markdown(folder);
        assert!(!names.is_empty());
        for name in names {
            let text = fs::read_to_string(here.join(&name)).unwrap();
            for link in text.split("](").skip(1) {
                let link = link.split(')').next().unwrap();
                if link.contains("://") {
                    continue;
                }
                let (file, heading) = link.split_once('#').unwrap_or((link, ""));
                let target = here.join(if file.is_empty() { &name } else { file });
                assert!(target.exists(), "{folder}/{name}: {link}");
                if !heading.is_empty() {
                    let text = fs::read_to_string(target).unwrap();
                    assert!(anchors(&text).any(|it| it == heading), "{folder}/{name}: {link}");
                }
            }
        }
    }
}

/// The headings of a page as links name them.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.collect::<String>().replace(' ', "-")
    })
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
