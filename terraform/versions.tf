terraform {
  required_version = ">= 1.9" # validations may say other things than their own variable
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7"
    }
  }
}
