//! The limit: the same rows by parallel binary COPY, with nothing around it.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

/// A table like the one measured, with its indexes, that is in no publication.
///
/// # Errors
/// When the database refuses.
pub async fn make_table(admin: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("DROP SCHEMA IF EXISTS bench CASCADE; CREATE SCHEMA bench; CREATE TABLE bench.sale (LIKE sales.sale INCLUDING ALL)")
        .execute(admin)
        .await?;
    Ok(())
}

/// Copies rows over so many connections, `rows` a COPY, each COPY a transaction; rows a second.
///
/// # Errors
/// When the database refuses.
pub async fn measure(url: &str, connections: u32, rows: usize, duration: Duration) -> Result<f64, sqlx::Error> {
    let pool = PgPoolOptions::new().max_connections(connections).connect(url).await?;
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..connections {
        let pool = pool.clone();
        tasks.spawn(async move {
            let mut connection = pool.acquire().await?;
            let (mut data, ids) = data(rows, number);
            let mut copied = 0;
            while begun.elapsed() < duration {
                for at in &ids {
                    data[*at..*at + 16].copy_from_slice(Uuid::now_v7().as_bytes());
                }
                let mut copy = connection.copy_in_raw(COPY).await?;
                for piece in data.chunks(256 * 1024) {
                    copy.send(piece).await?;
                }
                copied += copy.finish().await?;
            }
            Ok::<_, sqlx::Error>(copied)
        });
    }
    let mut copied = 0;
    while let Some(ended) = tasks.join_next().await {
        copied += ended.map_err(|error| sqlx::Error::Io(std::io::Error::other(error)))??;
    }
    Ok(copied as f64 / begun.elapsed().as_secs_f64())
}

const COPY: &str = "COPY bench.sale (id, store_id, receipt_number, status, sold_at, business_date, customer_number, total_amount, tax_amount, \
                    currency, points, paid) FROM STDIN (FORMAT binary)";

// The body of a COPY, and where the ids are.
fn data(rows: usize, connection: u32) -> (Vec<u8>, Vec<usize>) {
    let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    let mut ids = Vec::new();
    let field = |data: &mut Vec<u8>, bytes: &[u8]| {
        data.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        data.extend_from_slice(bytes);
    };
    for row in 0..rows {
        data.extend_from_slice(&12_i16.to_be_bytes());
        ids.push(data.len() + 4);
        field(&mut data, &[0; 16]);
        field(&mut data, &(0x0190_u128 + row as u128 % 40).to_be_bytes());
        field(&mut data, format!("{connection:04}{row:08}").as_bytes());
        field(&mut data, b"completed");
        field(&mut data, &(849_000_000_000_000_i64 + row as i64).to_be_bytes());
        field(&mut data, &9_820_i32.to_be_bytes());
        field(&mut data, format!("C{row:08}").as_bytes());
        // A numeric: digits of 10,000, weight, sign, digits behind the point.
        for amount in [123_i16, 19] {
            let digits = [2_i16, 0, 0, 2, amount, 4_500];
            field(&mut data, &digits.iter().flat_map(|digit| digit.to_be_bytes()).collect::<Vec<u8>>());
        }
        field(&mut data, b"EUR");
        field(&mut data, &(row as i64 % 300).to_be_bytes());
        field(&mut data, &[1]);
    }
    data.extend_from_slice(&(-1_i16).to_be_bytes());
    (data, ids)
}
