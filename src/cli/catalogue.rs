//! `tidemark catalogue`: the public products.

use std::process::ExitCode;

use aggregates::product::ProductCommand;
use clap::Subcommand;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::output::{Table, Terminal};
use super::{operator, report};
use crate::app::App;
use crate::commands::catalogue::{self, Catalogue, CatalogueError, Listed};
use crate::config::Config;
use crate::ids;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,

    /// Print one JSON object per product
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring a product into the catalogue, or change one that is there
    Define {
        /// Id of the product [default: a new one]
        #[arg(long, value_name = "UUID")]
        id: Option<Uuid>,
        #[command(flatten)]
        fields: Fields,
    },
    /// Change fields of a product; null clears one
    Update {
        id: Uuid,
        #[command(flatten)]
        fields: Fields,
    },
    /// Take a product out of the catalogue for good
    Withdraw { id: Uuid },
    /// All products
    List {
        /// Withdrawn products too
        #[arg(long)]
        withdrawn: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Fields {
    /// A field, such as name="Evening blend" or primaryCompound=12.5; repeatable
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, Value)>,
    /// A JSON object with fields
    #[arg(value_name = "JSON", value_parser = object)]
    object: Option<Map<String, Value>>,
}

impl Fields {
    fn all(&self) -> Map<String, Value> {
        let mut fields = self.object.clone().unwrap_or_default();
        fields.extend(self.set.iter().cloned());
        fields
    }
}

/// A value is JSON where it reads as such, else text.
fn pair(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((name.trim().to_owned(), value))
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("expected a JSON object: {error}"))
}

/// Reads or changes the catalogue.
pub(super) async fn run(config: &Config, args: &Args) -> anyhow::Result<ExitCode> {
    let app = App::beside(config).await?;
    let result = answer(&app, args).await;
    app.stop().await;
    result
}

async fn answer(app: &App, args: &Args) -> anyhow::Result<ExitCode> {
    let (id, command) = match &args.command {
        Command::List { withdrawn } => {
            let mut products = catalogue::list(&app.store).await?;
            products.retain(|listed| *withdrawn || !listed.product.state.deleted);
            return show(&products, args.json);
        }
        Command::Define { id, fields } => {
            (id.unwrap_or_else(ids::new_id), ProductCommand::Define { fields: fields.all() })
        }
        Command::Update { id, fields } => (*id, ProductCommand::Update { fields: fields.all() }),
        Command::Withdraw { id } => (*id, ProductCommand::Withdraw),
    };
    let writer = Catalogue::open(&app.read_pool.connect_options());
    let listed = writer.execute(id, command, &operator::name()).await;
    writer.close().await;
    show(&[listed.map_err(explain)?], args.json)
}

/// Names the fields that are not valid.
fn explain(error: CatalogueError) -> anyhow::Error {
    use aggregates::product::ProductError::Invalid;
    match &error {
        CatalogueError::Refused(Invalid(fields)) => {
            let fields: Vec<String> =
                fields.iter().map(|field| format!("{} {}", field.pointer, field.message)).collect();
            anyhow::anyhow!("the product is not valid ({})", fields.join("; "))
        }
        _ => error.into(),
    }
}

fn show(products: &[Listed], json: bool) -> anyhow::Result<ExitCode> {
    if json {
        for listed in products {
            report::json(&json!({
                "id": listed.id,
                "version": listed.version,
                "withdrawn": listed.product.state.deleted,
                "fields": listed.product.state.fields,
            }))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(["id", "#version", "name", "type", ""]);
    for listed in products {
        let state = &listed.product.state;
        table.row([
            listed.id.clone(),
            listed.version.to_string(),
            state.text("name").unwrap_or_default().to_owned(),
            state.text("type").unwrap_or_default().to_owned(),
            if state.deleted { "withdrawn".to_owned() } else { String::new() },
        ]);
    }
    report::text(&table.render(Terminal::of_stdout()))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json_where_they_read_as_json() {
        assert_eq!(pair("a=1.5"), Ok(("a".to_owned(), json!(1.5))));
        assert_eq!(pair("a=null"), Ok(("a".to_owned(), Value::Null)));
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), json!("b=c"))));
        assert!(pair("a").is_err());
        assert!(object("[]").is_err());
    }
}
