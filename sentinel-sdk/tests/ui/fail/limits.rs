use sentinel_sdk::guarded_action;

#[guarded_action(name = "a name of more than one hundred and twenty-eight characters, which no action may have, since it has to fit into a line of the ledger and on a screen")]
fn long_name() -> Result<(), sentinel_sdk::Error> {
    Ok(())
}

#[guarded_action]
fn a_function_of_more_than_one_hundred_and_twenty_eight_characters_which_no_action_may_have_since_it_has_to_fit_into_a_line_of_the_ledger() -> Result<(), sentinel_sdk::Error> {
    Ok(())
}

#[guarded_action(tags = ["a tag of more than sixty-four characters, which no action may have either"])]
fn long_tag() -> Result<(), sentinel_sdk::Error> {
    Ok(())
}

#[guarded_action(tags = [
    "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17",
    "18", "19", "20", "21", "22", "23", "24", "25", "26", "27", "28", "29", "30", "31", "32", "33",
])]
fn many_tags() -> Result<(), sentinel_sdk::Error> {
    Ok(())
}

fn main() {}
