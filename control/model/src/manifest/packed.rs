//! A manifest as it goes with its components: without what belongs to the folder in which it was written.

use std::collections::BTreeMap;

use toml_edit::{DocumentMut, Item, value};

use crate::Name;

/// What is said of a folder that others do not have.
const OF_THE_FOLDER: [&str; 2] = ["build", "test"];

/// Returns the text of a manifest in which each workload has its component at the path in `components`, and nothing is
/// built or tested; nothing if `text` is no TOML.
pub fn packed(text: &str, components: &BTreeMap<Name, String>) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok()?;
    for key in OF_THE_FOLDER {
        document.remove(key);
    }
    for kind in ["service", "job"] {
        let Some(workloads) = document.get_mut(kind).and_then(Item::as_table_like_mut) else { continue };
        for (name, path) in components {
            let workload = workloads.get_mut(name.as_str()).and_then(Item::as_table_like_mut);
            if let Some(workload) = workload {
                workload.insert("component", value(path.as_str()));
            }
        }
    }
    Some(document.to_string())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn what_belongs_to_the_folder_is_left_out() {
        let text = r#"
# A shop.
[app]
name = "shop"
[build]
command = "make"
[service.cart] # The cart.
component = "../../cart.wasm"
allocations = 2
[job]
sum = { component = "oci://a.example/sum:1", items = 3 }
[test.cart]
service = "cart"
"#;
        let components = [("cart", "components/cart.wasm"), ("sum", "components/sum.wasm")];
        let components = components.map(|(name, path)| (name.parse().unwrap(), path.to_owned())).into();
        expect![[r#"

            # A shop.
            [app]
            name = "shop"
            [service.cart] # The cart.
            component = "components/cart.wasm"
            allocations = 2
            [job]
            sum = { component = "components/sum.wasm", items = 3 }
        "#]]
        .assert_eq(&packed(text, &components).unwrap());
        assert_eq!(packed("[", &components), None);
    }
}
