# An apply and a destroy, by a provider that makes ids up, with fakes of aws, helm, kubectl and enid on PATH
# (test_applied.py): what they were run with, and in which order, is looked at there.

mock_provider "aws" {
  source = "./tests/aws"
}

variables {
  zones             = ["eu-central-1a", "eu-central-1b"]
  api_from          = ["203.0.113.7/32"]
  image             = { repository = "example.test/enid", tag = "0.1.0" }
  custom_networking = true
}

run "all_is_made" {
  assert {
    condition     = join(",", [for text in split("---\n", output.eni_configs) : yamldecode(text).metadata.name]) == "eu-central-1a,eu-central-1b"
    error_message = "ENIConfigs: ${output.eni_configs}"
  }
  assert {
    condition = alltrue([for text in split("---\n", output.eni_configs) :
      yamldecode(text).spec.subnet == output.pod_subnets[yamldecode(text).metadata.name] &&
      join(",", yamldecode(text).spec.securityGroups) == "sg-0123456789abcdef0"
    ])
    error_message = "ENIConfigs: ${output.eni_configs}"
  }
}
