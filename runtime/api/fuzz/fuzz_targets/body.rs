//! Bodies in JSON, NDJSON and CSV, to rows. What is taken without a fault is read back and is the same row; memory follows the input's size.
#![no_main]

use autonomy_api::body::{Purpose, Shape, read_objects};
use autonomy_api::problem::Intake;
use autonomy_api::representation::Representation;
use autonomy_api::rows::Rows;
use autonomy_api_fuzz::{check_row, entity};

const PURPOSES: [Purpose; 5] = [Purpose::Create, Purpose::Replace, Purpose::Patch, Purpose::PatchWithId, Purpose::Delete];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [choice, entity_choice, body @ ..] = data else { return };
    let representation = [Representation::Json, Representation::NdJson, Representation::Csv][usize::from(*choice) % 3];
    let purpose = PURPOSES[usize::from(*choice) / 3 % PURPOSES.len()];
    let plan = entity(*entity_choice);
    let (mut rows, mut intake) = (Rows::new(plan.columns.len()), Intake::default());
    let read = read_objects(body, representation, plan, purpose, &mut rows, &mut intake);
    assert!(rows.size() <= 512 * body.len() + 65_536, "{} bytes became {}", body.len(), rows.size());
    assert!(intake.faults.list().len() <= 100);
    for fault in intake.faults.list() {
        let pointer = fault.pointer.as_deref().expect("a fault of a body has a place");
        assert!(pointer.is_empty() || pointer.starts_with('/'), "{pointer}");
    }
    let Ok(shape) = read else { return };
    if intake.faults.is_empty() {
        assert!(shape == Shape::List || rows.len() == 1);
        assert!(intake.tags.is_sorted_by(|(row, _), (next, _)| row < next));
        assert!(intake.tags.last().is_none_or(|(row, _)| (*row as usize) < rows.len()));
        (0..rows.len()).for_each(|row| check_row(plan, &rows, row, purpose));
    }
});
