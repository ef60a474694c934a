//! docs/deploy.md.

use crate::{read, repository};

#[test]
fn the_page_names_every_file_to_deploy_with() {
    let page = read("docs/deploy.md");
    let files = std::fs::read_dir(repository().join("deploy")).unwrap();
    let names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.len() >= 5, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("(../deploy/{name})")), "{name}");
    }
}

#[test]
fn every_line_of_the_log_that_the_page_explains_is_written() {
    let page = read("docs/deploy.md");
    let sources = ["reports", "tally"].map(|file| read(&format!("consumer/src/keeper/{file}.rs")));
    let mut explained = 0;
    for row in page.split("| line | level |").nth(1).unwrap().lines().skip(2).take_while(|l| !l.is_empty()) {
        let line = row.split('`').nth(1).unwrap();
        assert!(sources.iter().any(|source| source.contains(&format!("\"{line}"))), "{line}");
        explained += 1;
    }
    assert!(explained >= 6, "{explained}");
}
