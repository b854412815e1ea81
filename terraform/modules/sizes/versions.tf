terraform {
  required_version = ">= 1.9" # validations may say other things than their own variable
}
