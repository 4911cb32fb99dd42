//! Bodies of `/api/transactions`. Each unit without a fault has its operations' rows, whole and in place.
#![no_main]

use autonomy_api::body::{self, Purpose};
use autonomy_api::rows::Value;
use autonomy_api::transactions;
use autonomy_api::write::Kind;
use autonomy_api_fuzz::{check_row, plans};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = body::text(data) else { return };
    let Ok(request) = transactions::read(text, plans(), Some("key")) else { return };
    let work = &request.work;
    assert_eq!(work.units.len(), request.failed.len());
    for batch in &work.batches {
        assert_eq!(batch.rows.len(), batch.owners.len());
        assert!(batch.conditions.iter().all(|condition| (condition.row as usize) < batch.rows.len()));
        assert!(batch.rows.size() <= 512 * data.len() + 65_536);
    }
    for (index, (unit, _)) in work.units.iter().zip(&request.failed).enumerate().filter(|(_, (_, failed))| failed.is_none()) {
        assert!(!unit.keys.is_empty() && unit.keys.len() == unit.key_texts.len());
        for (number, (batch, row)) in unit.operations.iter().enumerate() {
            let (batch, row) = (&work.batches[*batch as usize], *row as usize);
            assert_eq!((batch.owners[row].unit as usize, batch.owners[row].operation as usize), (index, number));
            assert!(matches!(batch.rows.get(row, 0), Value::Bytes(_)), "an operation has an id");
            let purpose = if batch.kind.is_create() { Purpose::Create } else { Purpose::PatchWithId };
            if batch.kind != Kind::Delete {
                check_row(&batch.plan, &batch.rows, row, purpose);
            }
        }
    }
});
