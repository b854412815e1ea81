variable "region" {
  description = "The region."
  type        = string
}

variable "zones" {
  description = "Two or more zones of it."
  type        = list(string)
}

variable "api_from" {
  description = "The CIDR blocks that reach the API server from outside."
  type        = list(string)
}

variable "image" {
  description = "enid's image."
  type = object({
    repository = string
    tag        = string
  })
}
