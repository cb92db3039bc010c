//! scratch
fn main() {
    let path = std::env::args().nth(1).unwrap();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let text: String = serde_json::from_str(line).unwrap();
        match flotilla_api::validation::check_cel(&text) {
            Ok(()) => println!("ok"),
            Err(e) => println!("no {e}"),
        }
    }
}
