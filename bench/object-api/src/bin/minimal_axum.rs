//! The hand-written peer: an axum handler over sqlx that does only what is measured, as one writes it in an afternoon. No checks beyond the
//! types, no events, no idempotency.

use std::error::Error;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgPoolOptions, PgRow};
use sqlx::{FromRow, PgPool, Row};
use tokio::net::TcpListener;
use uuid::Uuid;

const TABLE: &str = "CREATE TABLE sale (id uuid PRIMARY KEY, store_id uuid NOT NULL, receipt_number varchar(16) NOT NULL, status text NOT NULL, \
                     sold_at timestamptz NOT NULL, business_date date NOT NULL, customer_number varchar(12), total_amount numeric(14,2) NOT NULL, \
                     currency varchar(3) NOT NULL, loyalty text NOT NULL DEFAULT 'notApplicable', settlement text NOT NULL DEFAULT 'paid', \
                     customer_id uuid, lines jsonb NOT NULL, version bigint NOT NULL DEFAULT 1, created_at timestamptz NOT NULL DEFAULT now(), \
                     updated_at timestamptz NOT NULL DEFAULT now(), UNIQUE (store_id, receipt_number)); \
                     CREATE INDEX ON sale (business_date, store_id); CREATE INDEX ON sale (customer_number)";
const INSERT: &str = "INSERT INTO sale (id, store_id, receipt_number, status, sold_at, business_date, customer_number, total_amount, currency, lines) \
                      SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[]::timestamptz[], $6::text[]::date[], \
                      $7::text[], $8::text[]::numeric[], $9::text[], $10::jsonb[])";
const COLUMNS: &str = "id, store_id, receipt_number, status, to_char(sold_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS sold_at, \
                       business_date::text, customer_number, total_amount::float8, currency, lines";

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sale {
    id: Option<Uuid>,
    store_id: Uuid,
    receipt_number: String,
    status: String,
    sold_at: String,
    business_date: String,
    customer_number: Option<String>,
    total_amount: f64,
    currency: String,
    lines: serde_json::Value,
}

impl<'r> FromRow<'r, PgRow> for Sale {
    fn from_row(row: &'r PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get(0)?,
            store_id: row.try_get(1)?,
            receipt_number: row.try_get(2)?,
            status: row.try_get(3)?,
            sold_at: row.try_get(4)?,
            business_date: row.try_get(5)?,
            customer_number: row.try_get(6)?,
            total_amount: row.try_get(7)?,
            currency: row.try_get(8)?,
            lines: row.try_get(9)?,
        })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Sales {
    Many(Vec<Sale>),
    One(Box<Sale>),
}

#[derive(Deserialize)]
struct Page {
    limit: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    customer_number: String,
}

fn failed(error: sqlx::Error) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

async fn create(State(pool): State<PgPool>, Json(sales): Json<Sales>) -> Result<StatusCode, (StatusCode, String)> {
    let sales = match sales {
        Sales::Many(sales) => sales,
        Sales::One(sale) => vec![*sale],
    };
    let column = |value: fn(&Sale) -> String| sales.iter().map(value).collect::<Vec<_>>();
    sqlx::query(INSERT)
        .bind(sales.iter().map(|sale| sale.id.unwrap_or_else(Uuid::now_v7)).collect::<Vec<_>>())
        .bind(sales.iter().map(|sale| sale.store_id).collect::<Vec<_>>())
        .bind(column(|sale| sale.receipt_number.clone()))
        .bind(column(|sale| sale.status.clone()))
        .bind(column(|sale| sale.sold_at.clone()))
        .bind(column(|sale| sale.business_date.clone()))
        .bind(sales.iter().map(|sale| sale.customer_number.clone()).collect::<Vec<_>>())
        .bind(column(|sale| sale.total_amount.to_string()))
        .bind(column(|sale| sale.currency.clone()))
        .bind(sales.iter().map(|sale| sale.lines.clone()).collect::<Vec<_>>())
        .execute(&pool)
        .await
        .map_err(failed)?;
    Ok(StatusCode::CREATED)
}

async fn list(State(pool): State<PgPool>, Query(page): Query<Page>) -> Result<Json<Vec<Sale>>, (StatusCode, String)> {
    let text = format!("SELECT {COLUMNS} FROM sale ORDER BY id LIMIT $1");
    let query = sqlx::query_as(sqlx::AssertSqlSafe(text)).bind(page.limit.unwrap_or(100));
    Ok(Json(query.fetch_all(&pool).await.map_err(failed)?))
}

async fn one(State(pool): State<PgPool>, Path(id): Path<Uuid>) -> Result<Json<Sale>, (StatusCode, String)> {
    let text = format!("SELECT {COLUMNS} FROM sale WHERE id = $1");
    let sale = sqlx::query_as(sqlx::AssertSqlSafe(text)).bind(id).fetch_optional(&pool).await.map_err(failed)?;
    sale.map(Json).ok_or((StatusCode::NOT_FOUND, "not found".to_owned()))
}

async fn change(State(pool): State<PgPool>, Path(id): Path<Uuid>, Json(change): Json<Change>) -> Result<StatusCode, (StatusCode, String)> {
    let text = "UPDATE sale SET customer_number = $2, version = version + 1, updated_at = now() WHERE id = $1";
    sqlx::query(text).bind(id).bind(change.customer_number).execute(&pool).await.map_err(failed)?;
    Ok(StatusCode::NO_CONTENT)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = PgPoolOptions::new().max_connections(16).connect(&std::env::var("DATABASE_URL")?).await?;
    sqlx::raw_sql(TABLE).execute(&pool).await?;
    let address = format!("127.0.0.1:{}", std::env::var("PORT")?);
    let listener = TcpListener::bind(&address).await?;
    let limit = axum::extract::DefaultBodyLimit::max(64 << 20);
    let router =
        Router::new().route("/sales", get(list).post(create)).route("/sales/{id}", get(one).patch(change)).layer(limit).with_state(pool);
    println!("ready http://{address}");
    axum::serve(listener, router).await?;
    Ok(())
}
