mock_provider "aws" {
  source          = "../../tests/aws"
  override_during = plan
}

variables {
  region   = "eu-central-1"
  zones    = ["eu-central-1a", "eu-central-1b"]
  api_from = ["203.0.113.7/32"]
  image    = { repository = "example.test/enid", tag = "0.1.0" }
}

run "nodes_take_20" {
  command = plan

  assert {
    condition     = output.max_pods == 20
    error_message = "max-pods is ${output.max_pods}, not 20."
  }
}
